# A host in R: Rscript host.R DATABASE EXTENSION, the protocol of README.
library(DBI)

words <- commandArgs(trailingOnly = TRUE)
open_file <- function() {
  db <- dbConnect(RSQLite::SQLite(), words[1], loadable.extensions = TRUE, synchronous = NULL)
  invisible(dbGetQuery(db, "PRAGMA busy_timeout = 5000"))
  db
}
run <- function(db, sql) {
  answer <- dbSendQuery(db, sql)
  rows <- dbFetch(answer)
  dbClearResult(answer)
  for (k in seq_len(nrow(rows))) {
    cat(paste(vapply(rows[k, , drop = FALSE], function(v) if (is.na(v)) "" else format(v), ""), collapse = "|"), "\n", sep = "")
  }
}

first <- open_file()
invisible(dbGetQuery(first, "SELECT load_extension(?)", params = list(words[2])))
second <- NULL
input <- file("stdin", encoding = "UTF-8")
open(input)
while (length(line <- readLines(input, n = 1)) > 0) {
  if (line == ".quit") break
  if (line == ".exit") quit(save = "no", status = 0)
  if (startsWith(line, ".print ")) {
    cat(substring(line, 8), "\n", sep = "")
    next
  }
  db <- first
  if (startsWith(line, ".other ")) {
    if (is.null(second)) second <- open_file()
    db <- second
    line <- substring(line, 8)
  }
  tryCatch(suppressWarnings(run(db, line)), error = function(e) cat("Error: ", conditionMessage(e), "\n", sep = ""))
}
if (!is.null(second)) dbDisconnect(second)
dbDisconnect(first)
