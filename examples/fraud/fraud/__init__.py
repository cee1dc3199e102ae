"""Credit-card fraud: three models on a table where one row in 579 is a fraud."""
