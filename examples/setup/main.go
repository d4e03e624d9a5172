// Setup says what AWS must allow for a sink, and then whether the sink can
// write. Without -bucket it shows both on an S3 and an STS of its own: no account
// and no network are needed.
//
//	go run ./examples/setup
//	go run ./examples/setup -bucket acme-events -role arn:aws:iam::123456789012:role/S3Sink -external-id acme-42 -caller arn:aws:iam::123456789012:role/checkout -print cli
//	go run ./examples/setup -bucket acme-events -role arn:aws:iam::123456789012:role/S3Sink -external-id acme-42
//
// The second prints commands that set the policies up, the third validates. The
// exit code is 0 when the sink can write (or what was asked for is printed), 1
// when it cannot, and 2 for flags that are wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	canWrite   = 0
	cannot     = 1
	wrongFlags = 2
)

// run is the program, and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		complain(stderr, err)
		return wrongFlags
	}
	out := newPrinter(stdout, o.json)
	ok, err := setup(ctx, o, out, stderr)
	if err = errors.Join(err, out.finish(err)); err != nil {
		complain(stderr, err)
		return cannot
	}
	if !ok {
		return cannot
	}
	return canWrite
}

func setup(ctx context.Context, o options, out *printer, stderr io.Writer) (ok bool, err error) {
	if o.bucket == "" {
		return demonstrate(ctx, out, stderr)
	}
	if o.print != "" {
		if err := out.policies(o.print, o.dir, o.policies); err != nil {
			return false, err
		}
	}
	if o.print != "" && !o.validate {
		return true, nil
	}
	if o.print != "" {
		out.text("\n")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return validate(ctx, o.config, out, stderr)
}

func complain(stderr io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(stderr, "setup:", strings.TrimSuffix(line, "\n"))
	}
}
