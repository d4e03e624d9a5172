// Setup prints the policies that a sink needs in AWS, and checks whether the
// sink can write. Without -bucket it demonstrates both on an S3 and an STS
// inside the program, without an account or a network.
//
//	go run ./examples/setup
//	go run ./examples/setup -bucket acme-events -role arn:aws:iam::123456789012:role/S3Sink -external-id acme-42 -caller arn:aws:iam::123456789012:role/checkout -print cli
//	go run ./examples/setup -bucket acme-events -role arn:aws:iam::123456789012:role/S3Sink -external-id acme-42
//
// The first command is the demonstration. The second prints a script that
// creates the policies. The third validates. The exit code is 0 if the sink can
// write, or if -print has printed the policies; 1 if the sink cannot write; and
// 2 for invalid flags.
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
	canWrite     = 0
	cannotWrite  = 1
	invalidFlags = 2
)

// run is the program. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		printError(stderr, err)
		return invalidFlags
	}
	out := newPrinter(stdout, o.json)
	ok, err := setup(ctx, o, out, stderr)
	if err = errors.Join(err, out.finish(err)); err != nil {
		printError(stderr, err)
		return cannotWrite
	}
	if !ok {
		return cannotWrite
	}
	return canWrite
}

// setup runs what the flags ask for, and reports whether it succeeded.
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

// printError prints each line of an error after the name of the program.
func printError(stderr io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(stderr, "setup:", strings.TrimSuffix(line, "\n"))
	}
}
