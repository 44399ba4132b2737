// A guest of the http-wasm handler ABI, for test/integration/policy/wasm.test.ts. What it does is chosen by the path.
package main

import (
	"fmt"
	"strings"
	"time"
	"unsafe"
)

//go:wasmimport http_handler enable_features
func enableFeatures(features uint32) uint32

//go:wasmimport http_handler get_config
func getConfig(buf unsafe.Pointer, limit uint32) uint32

//go:wasmimport http_handler log
func hostLog(level int32, text unsafe.Pointer, length uint32)

//go:wasmimport http_handler get_method
func getMethod(buf unsafe.Pointer, limit uint32) uint32

//go:wasmimport http_handler get_uri
func getURI(buf unsafe.Pointer, limit uint32) uint32

//go:wasmimport http_handler set_uri
func setURI(text unsafe.Pointer, length uint32)

//go:wasmimport http_handler get_header_names
func getHeaderNames(kind uint32, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport http_handler get_header_values
func getHeaderValues(kind uint32, name unsafe.Pointer, nameLength uint32, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport http_handler set_header_value
func setHeaderValue(kind uint32, name unsafe.Pointer, nameLength uint32, value unsafe.Pointer, length uint32)

//go:wasmimport http_handler add_header_value
func addHeaderValue(kind uint32, name unsafe.Pointer, nameLength uint32, value unsafe.Pointer, length uint32)

//go:wasmimport http_handler remove_header
func removeHeader(kind uint32, name unsafe.Pointer, nameLength uint32)

//go:wasmimport http_handler read_body
func readBody(kind uint32, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport http_handler write_body
func writeBody(kind uint32, text unsafe.Pointer, length uint32)

//go:wasmimport http_handler get_status_code
func getStatusCode() uint32

//go:wasmimport http_handler set_status_code
func setStatusCode(status uint32)

const (
	request  = 0
	response = 1
)

var buffer [64 * 1024]byte

func at(text string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(text)) }
func size(text string) uint32       { return uint32(len(text)) }
func start() unsafe.Pointer         { return unsafe.Pointer(&buffer[0]) }
func limit() uint32                 { return uint32(len(buffer)) }

func config() string { return string(buffer[:getConfig(start(), limit())]) }
func method() string { return string(buffer[:getMethod(start(), limit())]) }
func uri() string    { return string(buffer[:getURI(start(), limit())]) }

func setHeader(kind uint32, name, value string) {
	setHeaderValue(kind, at(name), size(name), at(value), size(value))
}

func header(kind uint32, name string) string {
	found := getHeaderValues(kind, at(name), size(name), start(), limit())
	return strings.ReplaceAll(string(buffer[:uint32(found)]), "\x00", ";")
}

func names(kind uint32) []string {
	found := getHeaderNames(kind, start(), limit())
	return strings.Split(strings.TrimSuffix(string(buffer[:uint32(found)]), "\x00"), "\x00")
}

// Reads in small pieces, so that the end is told apart from a full buffer.
func body(kind uint32) string {
	var all strings.Builder
	for {
		result := readBody(kind, start(), 5)
		all.Write(buffer[:uint32(result)])
		if result>>32 == 1 {
			return all.String()
		}
	}
}

func write(kind uint32, text string) { writeBody(kind, at(text), size(text)) }

//go:wasmexport handle_request
func handleRequest() uint64 {
	asked := uri()
	switch {
	case strings.Contains(asked, "/deny"):
		setStatusCode(403)
		setHeader(response, "X-Guest", config())
		write(response, method()+" is ")
		write(response, "denied")
		return 0
	case strings.HasPrefix(asked, "/old"):
		target := "/v1.0/invoke/wasm/method/new?was=" + strings.TrimPrefix(asked, "/old?")
		setURI(at(target), size(target))
	case strings.Contains(asked, "/body"):
		text := "[" + body(request) + "]"
		write(request, text)
	case strings.Contains(asked, "/buffered"):
		enableFeatures(2)
	case strings.Contains(asked, "/clock"):
		setHeader(response, "x-clock", time.Now().UTC().Format(time.RFC3339))
	case strings.Contains(asked, "/trap"):
		panic("the guest gives up")
	case strings.Contains(asked, "/print"):
		fmt.Println("printed by the guest")
		text := "logged by the guest"
		hostLog(1, at(text), size(text))
	}
	many := "x-many"
	one := "one"
	addHeaderValue(request, at(many), size(many), at(one), size(one))
	setHeader(request, "x-seen", header(request, "x-many")+"|"+fmt.Sprint(len(names(request)) > 1))
	secret := "x-secret"
	removeHeader(request, at(secret), size(secret))
	setHeader(response, "x-early", "yes")
	return uint64(len(asked))<<32 | 1
}

//go:wasmexport handle_response
func handleResponse(context uint32, isError uint32) {
	setHeader(response, "x-context", fmt.Sprint(context, isError, getStatusCode()))
	if strings.Contains(uri(), "/buffered") {
		text := strings.ToUpper(body(response))
		setStatusCode(201)
		write(response, text)
	}
}

func main() {}
