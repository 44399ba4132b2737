module weft.test/guest

go 1.26
