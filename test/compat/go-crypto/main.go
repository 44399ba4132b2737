// Encrypts or decrypts one document with Dapr's own library, from standard input to standard output. File keys are
// wrapped by RSA-OAEP with SHA-256 and the PKCS 8 key in the given file.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	document "github.com/dapr/kit/schemes/enc/v1"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command, keyFile, cipherName string) error {
	key, err := readKey(keyFile)
	if err != nil {
		return err
	}
	var out io.Reader
	if command == "encrypt" {
		cipher := document.Cipher(cipherName)
		out, err = document.Encrypt(os.Stdin, document.EncryptOptions{
			Algorithm: document.KeyAlgorithmRSAOAEP256,
			KeyName:   "rsa.pem",
			Cipher:    &cipher,
			WrapKeyFn: func(plain []byte, _ string, _ string, _ []byte) ([]byte, []byte, error) {
				wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, plain, nil)
				return wrapped, nil, err
			},
		})
	} else {
		out, err = document.Decrypt(os.Stdin, document.DecryptOptions{
			UnwrapKeyFn: func(wrapped []byte, _ string, _ string, _ []byte, _ []byte) ([]byte, error) {
				return rsa.DecryptOAEP(sha256.New(), nil, key, wrapped, nil)
			},
		})
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, out)
	return err
}

func readKey(path string) (*rsa.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no RSA key", path)
	}
	return private, nil
}
