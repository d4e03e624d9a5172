// Quickstart sends events through s3sink into a bucket, then lists the bucket,
// downloads every object and checks that what went in came out. It needs no
// account and no network: without -bucket it starts an S3 and an STS of its own.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -stdin < events.ndjson
//	go run ./examples/quickstart -bucket acme-events -region eu-west-1 -role arn:aws:iam::123456789012:role/S3Sink -external-id acme-42
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/s3sink/s3sink"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program, and returns its exit code. When ctx ends it stops taking
// events, and brings those it has taken to the bucket as it always does.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	con := newConsole(stderr)
	opts, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = quickstart(ctx, opts, stdin, stdout, con)
	}
	if err != nil {
		fmt.Fprintln(con, "quickstart:", err)
		return 1
	}
	return 0
}

func quickstart(ctx context.Context, opts options, stdin io.Reader, stdout io.Writer, con *console) error {
	to, err := openStore(ctx, opts)
	if err != nil {
		return err
	}
	defer to.close()

	sent := &shipment{books: books{}}
	work, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	sink, err := s3sink.New(ctx, observed(to.config, sent, giveUp, con))
	if err != nil {
		return err
	}
	printStart(stdout, opts, to)
	err = sent.send(work, sink, opts, stdin, con)

	// From here on only the second Ctrl-C counts: what was sent is accounted for.
	found, readErr := readBack(context.WithoutCancel(ctx), to, sent, opts.keep, con)
	printSent(stdout, sent)
	if readErr == nil {
		err = errors.Join(err, printFound(stdout, sent, found))
	} else {
		err = errors.Join(err, printUnread(stdout, sent, readErr))
		opts.keep = "" // it is not all there
	}
	printHowToRead(stdout, opts, to, sent.uploaded())
	return err
}
