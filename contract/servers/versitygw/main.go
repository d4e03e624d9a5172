// Command versitygw is an S3 server for the contract tests: the versitygw gateway
// over a directory, with accounts that the tests add.
//
// It reads keys from standard input, one JSON object per line, and answers each
// with a line on standard output. It prints a first line when it is ready to read
// keys. It exits at the end of its standard input, so that it cannot outlive the
// test that started it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("versitygw: ")
	var cfg embedgw.Config
	address := flag.String("address", "", "where to listen")
	dir := flag.String("dir", "", "an empty directory for data")
	flag.StringVar(&cfg.RootUserAccess, "access", "", "access key of the owner")
	flag.StringVar(&cfg.RootUserSecret, "secret", "", "secret key of the owner")
	flag.StringVar(&cfg.Region, "region", "", "region")
	flag.StringVar(&cfg.CertFile, "cert", "", "certificate, for https")
	flag.StringVar(&cfg.KeyFile, "key", "", "key of the certificate")
	flag.Parse()

	// Standard output is for our answers; the gateway would print there too.
	answers := os.Stdout
	os.Stdout = os.Stderr

	accounts := newAccounts()
	cfg.IAMService = accounts
	cfg.Ports = []string{*address}
	cfg.MaxConnections = 4096
	cfg.MaxRequests = 4096
	cfg.MultipartMaxParts = 10_000
	cfg.KeepAlive = true
	cfg.Quiet = true
	cfg.HealthPath = "/health"
	backend, err := open(*dir)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		if err := accounts.serve(os.Stdin, answers); err != nil {
			log.Print(err)
		}
	}()
	if err := embedgw.RunVersityGW(ctx, backend, &cfg); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// open returns a backend that needs only plain files. The metadata of an object is
// in separate files, not in extended attributes.
func open(dir string) (*posix.Posix, error) {
	data, side := filepath.Join(dir, "data"), filepath.Join(dir, "meta")
	for _, d := range []string{data, side} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	store, err := meta.NewSideCar(side)
	if err != nil {
		return nil, err
	}
	return posix.New(data, store, posix.PosixOpts{SideCarDir: side, ForceNoTmpFile: true})
}

// serve reads keys until in ends.
func (a *accounts) serve(in *os.File, out *os.File) error {
	fmt.Fprintln(out, "ready")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var k key
		if err := json.Unmarshal(lines.Bytes(), &k); err != nil {
			return err
		}
		a.add(k)
		fmt.Fprintln(out, k.ID)
	}
	return lines.Err()
}
