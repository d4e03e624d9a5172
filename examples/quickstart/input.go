package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/terminal"
)

// maxReported is the number of invalid lines that are reported. Further ones
// are only counted.
const maxReported = 10

// input sends newline-delimited JSON from standard input.
type input struct {
	source   string
	shipment *shipment
	con      *console
}

// track sends every line. It reports and skips lines that are not events.
func (in *input) track(ctx context.Context, sink *s3sink.Sink, stdin io.Reader) error {
	if terminal.Is(stdin) {
		fmt.Fprintln(in.con, "quickstart: type events, one JSON object on each line; Ctrl-D ends the input")
	}
	account := in.shipment.ledger.open(in.source, "the whole line", wholeLine)
	lines := newLineReader(untilDone(ctx, stdin), s3sink.DefaultMaxEventBytes)
	for {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errLongLine):
			in.skip(lines.number, err)
			continue
		case err != nil:
			return fmt.Errorf("standard input, line %d: %w", lines.number, err)
		}
		if line = compactLine(line); len(line) == 0 {
			continue
		}
		err = sink.TrackContext(ctx, json.RawMessage(line))
		if bad := new(s3sink.EventError); errors.As(err, &bad) {
			in.skip(lines.number, err)
			continue
		}
		if err != nil {
			return err
		}
		account.in.add(line)
		in.shipment.events.Add(1)
		in.shipment.bytes.Add(int64(len(line)) + 1)
	}
}

// skip counts an invalid line, and reports it if few have been reported.
func (in *input) skip(number int64, err error) {
	in.shipment.skipped++
	switch n := in.shipment.skipped; {
	case n <= maxReported:
		fmt.Fprintf(in.con, "quickstart: line %d skipped: %v\n", number, err)
	case n == maxReported+1:
		fmt.Fprintln(in.con, "quickstart: further skipped lines are not reported")
	}
}

// compactLine returns a line as the sink stores it, so that the downloaded line
// can be compared byte for byte.
func compactLine(line []byte) []byte {
	line = bytes.TrimSpace(line)
	if bytes.IndexByte(line, '\r') < 0 {
		return line
	}
	var compact bytes.Buffer
	if json.Compact(&compact, line) != nil {
		return line // not JSON; Track returns the error
	}
	return compact.Bytes()
}

// untilDone returns a reader that reads from r until ctx ends. A read from a
// terminal or a pipe cannot be interrupted. A goroutine therefore makes the
// reads, and may still be blocked in one when the program exits.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { out.CloseWithError(context.Cause(ctx)) })
	return out
}

var errLongLine = fmt.Errorf("longer than the limit of %d bytes for an event", s3sink.DefaultMaxEventBytes)

// lineReader reads lines into one buffer of fixed size.
type lineReader struct {
	r      *bufio.Reader
	number int64 // of the line that next returned last, from 1
}

func newLineReader(r io.Reader, longest int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, longest+len("\r\n"))}
}

// next returns the next line without its newline. The line is valid until the
// next call. At the end of the input the error is io.EOF. For a line that is
// too long the error is errLongLine, and the following call returns the line
// after it.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if len(line) > 0 || err == nil {
		l.number++
	}
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case errors.Is(err, io.EOF) && len(line) > 0:
		return line, nil
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = l.r.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, errLongLine
}
