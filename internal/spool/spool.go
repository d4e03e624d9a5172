// Package spool keeps segments from their first frame until they are delivered.
// A segment is the frames of one object. Framed bytes never change, so a retry
// puts the same bytes under the same key.
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

// Spool stores segments: in memory ([Memory]) or on disk ([Journal]).
//
// One goroutine at a time may use a segment until it is sealed. After that any
// number may read it. Any number of segments may be open at once.
type Spool interface {
	// Append adds f to an open segment. The caller has checked
	// [Segment.Fits], and must not use f.Payload afterwards. After an error
	// the segment is unchanged.
	Append(seg *Segment, f Frame) error

	// Seal completes a segment; nothing may be appended afterwards. It
	// calls sealed once, when the seal is as durable as the spool promises.
	// The call may come before Seal returns, and from another goroutine. If
	// the disk fails, the spool retries.
	//
	// The object must not be put before sealed is called:
	//
	//   1. Two frames are appended, and the object is put before the seal
	//      is fsynced.
	//   2. A crash takes the second frame back.
	//   3. The next run seals the shorter segment and overwrites the longer
	//      object.
	Seal(seg *Segment, sealed func())

	// Object returns the object's bytes. The segment must be sealed.
	Object(seg *Segment) io.ReadSeeker

	// Remove forgets a sealed segment that is delivered or quarantined.
	Remove(seg *Segment)
}

// ErrUnreadable reports that the disk returns errors now. The object may still
// be intact.
var ErrUnreadable = errors.New("the object cannot be read")

// ErrChanged reports that an object's bytes are not the framed ones.
var ErrChanged = errors.New("the object has changed")

// Verify reads the object of a sealed segment. It returns nil if the bytes are
// the framed ones, and otherwise ErrChanged, ErrUnreadable or
// [io.ErrUnexpectedEOF].
func Verify(s Spool, seg *Segment) error {
	_, err := digest(s, seg)
	switch {
	case err == nil, errors.Is(err, ErrChanged):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the object ends early: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}

// SHA256 returns the hash of a sealed segment's object. The first call reads
// the object, and the segment keeps the hash. The error is ErrChanged or the
// read error. Several goroutines may call it at once.
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

// digest reads the whole object, a piece at a time. It checks the CRC-32 too,
// because the SHA-256 of changed bytes would vouch for them.
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

// Header is the identity and the metadata of an object. It is fixed when the
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

// Frame is a compressed block and the metadata of its events.
type Frame struct {
	deflate.Frame
	Events      int64
	First, Last time.Time // received

	// Identity of the block. Run is empty for a block of this run. Durable is nil,
	// or called when the frame is on disk and its lines may be freed.
	Run              string
	Partition, Block uint64
	Durable          func()
}

// Limits are the limits of a segment.
type Limits struct {
	Bytes  int64 // of the object
	Events int64 // 0: no limit
}

// Segment is the frames of one object: a header, and running totals.
type Segment struct {
	Header
	Events      int64
	Raw         int64 // bytes before compression
	First, Last time.Time

	rawCRC, payloadCRC uint32
	payload            int64    // bytes of all payloads
	payloads           extents  // of a Memory spool
	disk               []extent // payloads of a Journal
	frames             uint64
	trailer            []byte                            // set by seal
	sha256             atomic.Pointer[[sha256.Size]byte] // nil until computed
}

func (s *Segment) id() segmentID { return segmentID{s.RunID, s.Sequence} }

// NewSegment returns an open segment without frames.
func NewSegment(h Header) *Segment { return &Segment{Header: h} }

// Fits reports whether f can join the segment. A segment without frames takes
// any frame, because the configured limits always admit one block.
func (s *Segment) Fits(f *Frame, lim Limits) bool {
	return s.Events == 0 ||
		s.Size()+int64(len(f.Payload)) <= lim.Bytes &&
			s.Raw+f.Raw <= deflate.MaxRaw &&
			(lim.Events == 0 || s.Events+f.Events <= lim.Events)
}

// Size returns the length of the object if the segment were sealed now.
func (s *Segment) Size() int64 { return s.payload + int64(deflate.Overhead) }

// CRC32 returns the checksum of the whole object.
func (s *Segment) CRC32() uint32 {
	crc := deflate.CombineCRC(headerCRC, s.payloadCRC, s.payload)
	return deflate.CombineCRC(crc, crc32.ChecksumIEEE(s.trailer), int64(len(s.trailer)))
}

var headerCRC = crc32.ChecksumIEEE([]byte(deflate.Header))

func (s *Segment) add(f *Frame) { s.addSize(f, int64(len(f.Payload))) }

// addSize adds a frame whose payload of the given length is not in memory.
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
