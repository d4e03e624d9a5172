package spool

import (
	"io"

	"github.com/s3sink/s3sink/internal/deflate"
)

// Memory is the spool of a sink without a directory. Its segments are lost with
// the process. Sealing is immediate, and nothing can fail.
type Memory struct{}

var _ Spool = Memory{}

// Append implements [Spool].
func (Memory) Append(seg *Segment, f Frame) error {
	if seg.Events == 0 {
		seg.payloads.add([]byte(deflate.Header))
	}
	seg.add(&f)
	seg.payloads.add(f.Payload)
	return nil
}

// Seal implements [Spool].
func (Memory) Seal(seg *Segment, sealed func()) {
	seg.seal()
	seg.payloads.add(seg.trailer)
	sealed()
}

// Object implements [Spool].
func (Memory) Object(seg *Segment) io.ReadSeeker { return seg.payloads.reader() }

// Remove implements [Spool].
func (Memory) Remove(seg *Segment) { seg.payloads = extents{} }
