// Package setup is the subcommand "s3sink setup". It prints the policies that a sink
// needs in AWS, and checks whether the sink can write. Without -bucket it demonstrates
// both on an S3 and an STS inside the program, without an account or a network.
package setup

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Exit codes.
const (
	canWrite     = 0
	cannotWrite  = 1
	invalidFlags = 2
)

// Run runs the subcommand with args, its flags, and returns the exit code: 0 if the
// sink can write, or if -print has printed the policies; 1 if the sink cannot write;
// and 2 for invalid flags. It stops when ctx ends.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
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

// printError prints each line of an error after the name of the subcommand.
func printError(stderr io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(stderr, "s3sink setup:", strings.TrimSuffix(line, "\n"))
	}
}
