package deflate

import (
	"bytes"
	"hash/crc32"

	"github.com/klauspost/compress/flate"
)

// Frame is one block, compressed. Payload never changes once made: a retry
// sends the same bytes.
type Frame struct {
	Payload []byte
	CRC     uint32 // CRC-32 of Payload
	Raw     int64  // bytes before compression
	RawCRC  uint32 // CRC-32 of the bytes before compression
}

// Encoder makes frames. It is not safe for concurrent use; [Pool] hands each
// worker one of its own.
type Encoder struct {
	out     bytes.Buffer
	deflate *flate.Writer
}

// NewEncoder returns an encoder of the given level, 1 to 9.
func NewEncoder(level int) (*Encoder, error) {
	e := new(Encoder)
	w, err := flate.NewWriter(&e.out, level)
	e.deflate = w
	return e, err
}

// Frame compresses the bytes of chunks, in order, as one block. It keeps none
// of them, and the frame owns its payload.
func (e *Encoder) Frame(chunks [][]byte) (Frame, error) {
	var f Frame
	e.out.Reset()
	e.deflate.Reset(&e.out)
	for _, c := range chunks {
		f.Raw += int64(len(c))
		f.RawCRC = crc32.Update(f.RawCRC, crc32.IEEETable, c)
		if _, err := e.deflate.Write(c); err != nil {
			return Frame{}, err
		}
	}
	if err := e.deflate.Flush(); err != nil {
		return Frame{}, err
	}
	f.Payload = bytes.Clone(e.out.Bytes())
	if e.out.Cap() > maxKept {
		e.out = bytes.Buffer{}
	}
	f.CRC = crc32.ChecksumIEEE(f.Payload)
	return f, nil
}

// maxKept is the most output space kept for the next block.
const maxKept = 2 << 20

// stored is the least that klauspost's flate puts into a stored block, which
// is what bytes without any pattern become: 32,768 at levels 7 to 9, 65,535
// at the others.
const stored = 32768

// Bound returns the most bytes a block of raw bytes can be as a frame: stored
// blocks with five bytes each, one more for a tail, and the sync flush.
func Bound(raw int64) int64 {
	return raw + 5*(raw/stored+2) + 16
}
