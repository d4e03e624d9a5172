package spool

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"hash/crc32"
	"slices"
	"time"
)

// ErrDamaged is a frame that is not what it was.
var ErrDamaged = errors.New("spool: a frame does not match its checksum")

// Leftover is a block of an earlier run without a frame, or with one that needs
// another segment.
type Leftover struct {
	Run              string
	Partition, Block uint64
	First, Last      time.Time // received

	files  *files
	pieces []piece   // in order; where damage came, with holes
	framed *oldFrame // or nil
}

// piece is the lines of a stage.
type piece struct {
	at     extent
	offset int64 // in the block
}

// leftover returns what there is of a block, or nil.
func (b *oldBlock) leftover(id blockID, fs *files) *Leftover {
	slices.SortStableFunc(b.pieces, func(x, y piece) int { return cmp.Compare(x.offset, y.offset) })
	l := &Leftover{
		Run: id.run, Partition: id.partition, Block: id.block,
		First: b.stage.first, Last: b.last, files: fs,
	}
	var have int64
	for _, p := range b.pieces {
		if p.offset >= have && p.at.size > 0 { // else it is a copy of what is there
			l.pieces = append(l.pieces, p)
			have = p.offset + p.at.size
		}
	}
	if len(l.pieces) == 0 {
		return nil
	}
	return l
}

// Lines reads the block's lines into memory: whole ones, because a crash may
// have come within one that was too long for a record, and damage before it.
func (l *Leftover) Lines() ([]byte, error) {
	var lines []byte
	start, have, torn := 0, int64(0), false // where what has no hole begins; whether one is before it
	for _, p := range l.pieces {
		if p.offset > have {
			lines = keepWhole(lines, start, torn)
			start, have, torn = len(lines), p.offset, true
		}
		at := len(lines)
		lines = append(lines, make([]byte, p.at.size)...)
		if _, err := l.files.readPayload(p.at, lines[at:], 0); err != nil {
			return nil, err
		}
		have += p.at.size
	}
	return keepWhole(lines, start, torn), nil
}

// keepWhole cuts what follows the last line break from start on. Behind a hole
// the first line may be the end of one: then it is no JSON object, because the
// brace that closes it opens in what is missing.
func keepWhole(lines []byte, start int, torn bool) []byte {
	lines = lines[:start+bytes.LastIndexByte(lines[start:], '\n')+1]
	if !torn {
		return lines
	}
	end := start + bytes.IndexByte(lines[start:], '\n') + 1
	first := bytes.TrimLeft(lines[start:end], " \t\r")
	if len(first) > 0 && first[0] == '{' && json.Valid(first) {
		return lines
	}
	return slices.Delete(lines, start, end)
}

// Frame returns the block's frame, if it has one. After ErrDamaged its number
// of events is known.
func (l *Leftover) Frame() (f Frame, framed bool, err error) {
	if l.framed == nil {
		return f, false, nil
	}
	f = l.framed.frame()
	f.Payload = make([]byte, l.framed.at.size)
	if _, err := l.files.readPayload(l.framed.at, f.Payload, 0); err != nil {
		return f, true, err
	}
	if crc32.ChecksumIEEE(f.Payload) != f.CRC {
		return f, true, ErrDamaged
	}
	return f, true, nil
}
