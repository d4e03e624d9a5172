// Package spool keeps segments from their first frame until they are
// delivered. A segment is the frames of one object, and its bytes never change
// once framed: a retry sends the same bytes to the same key.
package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/deflate"
)

// Spool is where segments live: [Memory], or a journal on disk.
//
// One goroutine at a time uses a segment until it is sealed; after that any
// number may read it. A spool may hold many segments that are open at once.
type Spool interface {
	// Append puts f at the end of an open segment. The caller has asked
	// [Segment.Fits] and does not use f.Payload afterwards. After an error
	// the segment is as it was.
	Append(seg *Segment, f Frame) error

	// Seal completes a segment: nothing is appended to it again. It calls
	// sealed once, perhaps before it returns and perhaps from another
	// goroutine, when the seal is as durable as the spool promises; a spool
	// whose disk fails goes on trying. Nothing may be put before that, or a
	// crash could leave a shorter segment that overwrites a longer object.
	Seal(seg *Segment, sealed func())

	// Object returns the bytes of the object that a sealed segment is.
	Object(seg *Segment) io.ReadSeeker

	// Remove forgets a sealed segment, which is delivered or given up.
	Remove(seg *Segment)
}

// ErrUnread says that a disk cannot be read now, which says nothing about what
// is on it.
var ErrUnread = errors.New("the object cannot be read")

// ErrChanged says that the bytes of an object are not those that were framed.
var ErrChanged = errors.New("the object has changed")

// Verify reports whether the object that a sealed segment is still is what was
// framed, or returns ErrUnread.
func Verify(s Spool, seg *Segment) error {
	_, err := digest(s, seg)
	switch {
	case err == nil, errors.Is(err, ErrChanged):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the object breaks off: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrUnread, err)
}

// SHA256 returns the hash of the object that a sealed segment is. It reads the
// object at the first call, and the segment keeps the hash. The error is
// ErrChanged, or why the object could not be read. It may be called from several
// goroutines at once.
func SHA256(s Spool, seg *Segment) ([sha256.Size]byte, error) {
	if known := seg.sha256.Load(); known != nil {
		return *known, nil
	}
	sum, err := digest(s, seg)
	if err == nil {
		seg.sha256.Store(&sum)
	}
	return sum, err
}

// digest reads the whole object, a piece at a time. Its SHA-256 is worth nothing
// if the bytes are not those that were framed, so it checks their CRC-32 too.
func digest(s Spool, seg *Segment) (sum [sha256.Size]byte, err error) {
	crc, sha := crc32.NewIEEE(), sha256.New()
	n, err := io.Copy(io.MultiWriter(crc, sha), s.Object(seg))
	switch {
	case err != nil:
		return sum, err
	case n != seg.Size():
		return sum, fmt.Errorf("%w: it has %d bytes instead of %d", ErrChanged, n, seg.Size())
	case crc.Sum32() != seg.CRC32():
		return sum, fmt.Errorf("%w: its CRC-32 is %08x instead of %08x", ErrChanged, crc.Sum32(), seg.CRC32())
	}
	return [sha256.Size]byte(sha.Sum(nil)), nil
}

// Header is what makes a segment the object it will be. It is fixed when the
// segment takes its first block.
type Header struct {
	RunID    string
	Sequence uint64 // orders the segments of a run
	Bucket   string
	Key      string
	Source   string
	Day      time.Time // received-day, 00:00 UTC
	Opened   time.Time

	ContentType, ContentEncoding string
}

// Frame is a compressed block, with what is known of its events.
type Frame struct {
	deflate.Frame
	Events      int64
	First, Last time.Time // received

	// Of which block it is, for spools that outlive the process; Run is empty
	// for one of this run. Durable is nil, or called when the frame need not be
	// in memory any more.
	Run              string
	Partition, Block uint64
	Durable          func()
}

// Limits bound a segment.
type Limits struct {
	Bytes  int64 // of the object
	Events int64 // 0: no limit
}

// Segment is a header and the running values of its frames.
type Segment struct {
	Header
	Events      int64
	Raw         int64 // bytes before compression
	First, Last time.Time

	rawCRC, payloadCRC uint32
	payload            int64    // bytes
	payloads           extents  // in memory
	disk               []extent // or on disk
	frames             uint64
	trailer            []byte                            // set by seal
	sha256             atomic.Pointer[[sha256.Size]byte] // nil: not computed
}

func (s *Segment) id() segmentID { return segmentID{s.RunID, s.Sequence} }

// NewSegment returns an open segment without frames.
func NewSegment(h Header) *Segment { return &Segment{Header: h} }

// Fits reports whether f can join the segment. A segment without frames takes
// any frame: limits are checked to hold one when they are set.
func (s *Segment) Fits(f *Frame, lim Limits) bool {
	return s.Events == 0 ||
		s.Size()+int64(len(f.Payload)) <= lim.Bytes &&
			s.Raw+f.Raw <= deflate.MaxRaw &&
			(lim.Events == 0 || s.Events+f.Events <= lim.Events)
}

// Size returns the length of the object, were the segment sealed now.
func (s *Segment) Size() int64 { return s.payload + int64(deflate.Overhead) }

// CRC32 returns the checksum of the whole object.
func (s *Segment) CRC32() uint32 {
	crc := deflate.CombineCRC(headerCRC, s.payloadCRC, s.payload)
	return deflate.CombineCRC(crc, crc32.ChecksumIEEE(s.trailer), int64(len(s.trailer)))
}

var headerCRC = crc32.ChecksumIEEE([]byte(deflate.Header))

func (s *Segment) add(f *Frame) { s.addSize(f, int64(len(f.Payload))) }

// addSize is add for a frame whose payload, of that many bytes, is elsewhere.
func (s *Segment) addSize(f *Frame, payload int64) {
	if s.Events == 0 {
		s.First, s.Last = f.First, f.Last
	}
	if f.First.Before(s.First) {
		s.First = f.First
	}
	if f.Last.After(s.Last) {
		s.Last = f.Last
	}
	s.Events += f.Events
	s.Raw += f.Raw
	s.rawCRC = deflate.CombineCRC(s.rawCRC, f.RawCRC, f.Raw)
	s.payloadCRC = deflate.CombineCRC(s.payloadCRC, f.CRC, payload)
	s.payload += payload
}

func (s *Segment) seal() { s.trailer = deflate.Trailer(s.rawCRC, s.Raw) }
