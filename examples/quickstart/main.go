// Quickstart sends events through s3sink to a bucket, lists the bucket,
// downloads every object and checks that the objects hold exactly the events
// that were sent. Without -bucket it starts an S3 and an STS inside the program,
// so it needs no account and no network.
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

// run is the program. It returns the exit code. When ctx ends, it stops reading
// events and uploads the events that it has read.
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

// quickstart sends the events, reads them back, and prints the report.
func quickstart(ctx context.Context, opts options, stdin io.Reader, stdout io.Writer, con *console) error {
	store, err := openStore(ctx, opts)
	if err != nil {
		return err
	}
	defer store.close()

	sent := &shipment{ledger: ledger{}}
	work, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	sink, err := s3sink.New(ctx, withHooks(store.config, sent, giveUp, con))
	if err != nil {
		return err
	}
	printStart(stdout, opts, store)
	err = sent.send(work, sink, opts, stdin, con)

	// The first Ctrl-C ended ctx, but the sent events are still checked. The
	// second one ends the program.
	found, readErr := readBack(context.WithoutCancel(ctx), store, sent, opts.keep, con)
	printSent(stdout, sent)
	if readErr == nil {
		err = errors.Join(err, printFound(stdout, sent, found))
	} else {
		err = errors.Join(err, printUnread(stdout, sent, readErr))
		opts.keep = "" // the directory is incomplete
	}
	printHowToRead(stdout, opts, store, sent.uploaded())
	return err
}
