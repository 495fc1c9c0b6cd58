// Benchmark peer: net/http/cgi, one CGI script per request.
//
//	cgi --port PORT SCRIPT
package main

import (
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
)

func main() {
	port := flag.String("port", "", "to listen on, on loopback")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("one script is needed")
	}
	handler := &cgi.Handler{Path: flag.Arg(0), Root: "/"}
	address := net.JoinHostPort("127.0.0.1", *port)
	log.Fatal(http.ListenAndServe(address, handler))
}
