module weft.test/crypto

go 1.26

require github.com/dapr/kit v0.13.0

require (
	golang.org/x/crypto v0.14.0 // indirect
	golang.org/x/sys v0.13.0 // indirect
)
