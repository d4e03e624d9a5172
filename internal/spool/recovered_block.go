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

// ErrDamaged reports a frame that does not match its checksum.
var ErrDamaged = errors.New("spool: a frame does not match its checksum")

// RecoveredBlock is a block of a previous run that must be appended to a
// segment. It has no frame yet, or the frame of a damaged segment.
type RecoveredBlock struct {
	Run              string
	Partition, Block uint64
	First, Last      time.Time // received

	files        *files
	stages       []stagedLines // in order; with gaps where stages were damaged
	damagedFrame *oldFrame     // frame of a damaged segment, or nil
}

// stagedLines is the place of a stage's lines.
type stagedLines struct {
	at     extent
	offset int64 // in the block
}

// recovered returns the block for delivery, or nil if it has no lines.
func (b *oldBlock) recovered(id blockID, fs *files) *RecoveredBlock {
	slices.SortStableFunc(b.stages, func(x, y stagedLines) int { return cmp.Compare(x.offset, y.offset) })
	block := &RecoveredBlock{
		Run: id.run, Partition: id.partition, Block: id.block,
		First: b.stage.first, Last: b.last, files: fs,
	}
	var have int64
	for _, p := range b.stages {
		if p.offset >= have && p.at.size > 0 { // else it is a copy of an earlier stage
			block.stages = append(block.stages, p)
			have = p.offset + p.at.size
		}
	}
	if len(block.stages) == 0 {
		return nil
	}
	return block
}

// Lines reads the block's lines into memory. It omits partial lines: a crash
// may have cut a line longer than a record, and damage may have taken the
// beginning of one.
func (b *RecoveredBlock) Lines() ([]byte, error) {
	var lines []byte
	start, have, afterGap := 0, int64(0), false // start of the range without a gap; whether a gap precedes it
	for _, p := range b.stages {
		if p.offset > have {
			lines = keepWhole(lines, start, afterGap)
			start, have, afterGap = len(lines), p.offset, true
		}
		at := len(lines)
		lines = append(lines, make([]byte, p.at.size)...)
		if _, err := b.files.readPayload(p.at, lines[at:], 0); err != nil {
			return nil, err
		}
		have += p.at.size
	}
	return keepWhole(lines, start, afterGap), nil
}

// keepWhole drops the bytes after the last line break from start on. After a
// gap the first line may be the end of a line. Such an end is no JSON object:
// its last brace was opened in the missing part.
func keepWhole(lines []byte, start int, afterGap bool) []byte {
	lines = lines[:start+bytes.LastIndexByte(lines[start:], '\n')+1]
	if !afterGap {
		return lines
	}
	end := start + bytes.IndexByte(lines[start:], '\n') + 1
	first := bytes.TrimLeft(lines[start:end], " \t\r")
	if len(first) > 0 && first[0] == '{' && json.Valid(first) {
		return lines
	}
	return slices.Delete(lines, start, end)
}

// Frame returns the block's frame, if it has one. With ErrDamaged, f has the
// number of its events.
func (b *RecoveredBlock) Frame() (f Frame, framed bool, err error) {
	if b.damagedFrame == nil {
		return f, false, nil
	}
	f = b.damagedFrame.unpack()
	f.Payload = make([]byte, b.damagedFrame.at.size)
	if _, err := b.files.readPayload(b.damagedFrame.at, f.Payload, 0); err != nil {
		return f, true, err
	}
	if crc32.ChecksumIEEE(f.Payload) != f.CRC {
		return f, true, ErrDamaged
	}
	return f, true, nil
}
