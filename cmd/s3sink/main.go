// S3sink is the command line of the library s3sink: one subcommand for each job that
// a person does beside the service. "s3sink help" lists them.
//
//	go run github.com/s3sink/s3sink/cmd/s3sink@latest help
//
// The exit code of every subcommand is 0 when its answer is yes or its output is
// printed, 1 when its answer is no or it failed, and 2 for wrong arguments.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/s3sink/s3sink/cmd/s3sink/internal/setup"
)

// subcommand is one job of the program.
type subcommand struct {
	name    string
	summary string // one line of help

	// run gets the arguments after the name and returns the exit code. With -h it
	// prints its help to stdout and returns 0.
	run func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

// subcommands are all jobs of the program, in the order of the help. A new one is a
// row here and a file with its run function, or a package below internal.
var subcommands = []subcommand{
	{"setup", "print what AWS must allow for a sink, and check that the sink can write", setup.Run},
}

// wrongArguments is the exit code for arguments that name no subcommand.
const wrongArguments = 2

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the subcommand that args name and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		printHelp(stderr)
		return wrongArguments
	}
	name, rest := args[0], args[1:]
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, name) {
		if len(rest) == 0 {
			printHelp(stdout)
			return 0
		}
		name, rest = rest[0], []string{"-h"} // help NAME is NAME -h
	}
	for _, sub := range subcommands {
		if sub.name == name {
			return sub.run(ctx, rest, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "s3sink: no subcommand %q; s3sink help lists them\n", name)
	return wrongArguments
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "Usage: s3sink SUBCOMMAND [FLAGS]\n\nSubcommands:\n\n")
	for _, sub := range subcommands {
		fmt.Fprintf(w, "  %-10s %s\n", sub.name, sub.summary)
	}
	fmt.Fprint(w, "\n\"s3sink help SUBCOMMAND\" prints its flags.\n")
}
