// Command versitygw is an S3 for the contract tests: the versitygw gateway over
// a directory, with an account list that the tests write.
//
// It reads keys from standard input, one JSON object a line, and answers each
// with a line on standard output; the first answer comes when it is ready to
// take them. It ends with its standard input, so that it cannot outlive the
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

	// The gateway has things to say on standard output, where our answers go.
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

// open makes a backend that needs nothing of the file system but files: what
// S3 knows of an object beyond its bytes is in files beside it.
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

// serve takes keys until in ends.
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
