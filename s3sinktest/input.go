package s3sinktest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// maxBody bounds what one request can make the server hold.
const maxBody = 200 << 20

var errTooLarge = errors.New("body is too large")

// input is a request's body, read from the connection no further than a reader
// asked for, and kept. It belongs to the goroutine of its request.
type input struct {
	from     io.Reader
	expected int64
	read     bytes.Buffer
	end      error // why nothing more can be read; io.EOF after a whole body
}

func newInput(r *http.Request) *input {
	// One byte more than allowed tells a body that is too large.
	in := &input{from: io.LimitReader(r.Body, maxBody+1), expected: r.ContentLength}
	if r.ContentLength > maxBody {
		in.end = errTooLarge
	}
	return in
}

// fill reads until n bytes have been read, or the body ends.
func (in *input) fill(n int64) error {
	for in.end == nil && int64(in.read.Len()) < n {
		_, err := io.CopyN(&in.read, in.from, n-int64(in.read.Len()))
		in.end = err
		if in.read.Len() > maxBody {
			in.end = errTooLarge
		}
	}
	return in.end
}

// all reads the rest and returns the whole.
func (in *input) all() ([]byte, error) {
	if in.end == nil && in.expected > 0 {
		// All that is announced at once: growing step by step copies large bodies.
		in.read.Grow(int(in.expected) - in.read.Len() + bytes.MinRead)
	}
	if err := in.fill(maxBody + 1); !errors.Is(err, io.EOF) {
		return in.read.Bytes(), err
	}
	return in.read.Bytes(), nil
}

// again returns a reader of the body from its beginning. It reads from the
// connection beyond the bytes that are kept.
func (in *input) again() io.Reader { return &inputReader{in: in} }

type inputReader struct {
	in  *input
	off int
}

func (r *inputReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.off == r.in.read.Len() {
		if err := r.in.fill(int64(r.off) + 1); r.off == r.in.read.Len() {
			return 0, err
		}
	}
	n := copy(p, r.in.read.Bytes()[r.off:])
	r.off += n
	return n, nil
}
