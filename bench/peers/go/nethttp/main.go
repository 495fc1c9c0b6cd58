// Benchmark peer: net/http and os/exec, one process per request.
//
//	nethttp --port PORT [--stderr inherit|pipe] -- CMD ARG...
//
// --stderr inherit (the default) opens one pipe per child, for stdout, as every other row does.
// --stderr pipe is (*exec.Cmd).Output as it is usually written: it makes and reads a second pipe,
// and opens /dev/null for stdin. Otherwise the child inherits this server's stdin.
package main

import (
	"bytes"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
)

func run(argv []string, pipeStderr bool) ([]byte, error) {
	command := exec.Command(argv[0], argv[1:]...)
	if pipeStderr {
		return command.Output()
	}
	var output bytes.Buffer
	command.Stdin = os.Stdin
	command.Stdout = &output
	command.Stderr = os.Stderr
	err := command.Run()
	return output.Bytes(), err
}

func main() {
	port := flag.String("port", "", "to listen on, on loopback")
	stderr := flag.String("stderr", "inherit", "inherit or pipe")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("no command given after --")
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		output, err := run(flag.Args(), *stderr == "pipe")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Write(output)
	}
	address := net.JoinHostPort("127.0.0.1", *port)
	log.Fatal(http.ListenAndServe(address, http.HandlerFunc(handler)))
}
