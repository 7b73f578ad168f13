# Exports the data sets that come from R. Run once, in this folder: Rscript export.R
#
# Origin: package `datasets`, part of R 4.2.2 (GPL-2 | GPL-3), R Core Team; the exported
# values do not depend on R's version. Original publications:
#   theophylline  Boeckmann, Sheiner and Beal (1994), NONMEM Users Guide: Part V
#   orange        Draper and Smith (1998), Applied Regression Analysis, 3rd ed., exercise 24.N
#   loblolly      Kung (1986), Proc. Statistical Computing Section, ASA, 340-343
#   indometh      Kwan et al. (1976), J. Pharmacokinetics and Biopharmaceutics 4, 255-280
#   old_faithful  Haerdle (1991), Smoothing Techniques with Implementation in S
#   iris          Fisher (1936), Annals of Eugenics 7, 179-188; Anderson (1935)

library(datasets)

# R orders these factors by size of response; the export numbers them and sorts by number,
# keeping R's order of rows within a subject.
by_number <- function(d, id) {
  d <- as.data.frame(d)
  d[[id]] <- as.integer(as.character(d[[id]]))
  d[order(d[[id]]), ]  # order() is stable
}

export <- function(d, name) {
  con <- file(paste0(name, ".csv"), open = "wb")  # binary: the same line ends everywhere
  write.csv(d, con, row.names = FALSE, quote = FALSE, eol = "\n")
  close(con)
}

theo <- by_number(Theoph, "Subject")
theo$Dose <- round(theo$Dose * theo$Wt, 3)  # mg/kg to mg
# The pre-dose row of each subject is left out: the model predicts 0 there.
export(theo[theo$Time > 0, c("Subject", "Wt", "Dose", "Time", "conc")], "theophylline")

export(by_number(Orange, "Tree")[, c("Tree", "age", "circumference")], "orange")
export(by_number(Loblolly, "Seed")[, c("Seed", "age", "height")], "loblolly")
export(by_number(Indometh, "Subject")[, c("Subject", "time", "conc")], "indometh")
export(faithful, "old_faithful")
names(iris) <- c("sepal_length", "sepal_width", "petal_length", "petal_width", "species")
export(iris, "iris")
