package spool

import (
	"errors"
	"hash/crc32"
	"slices"
	"time"
)

const (
	// cleanStep is the number of live bytes that one commit copies, give or
	// take a record. Callers of Commit wait for them.
	cleanStep = 256 << 10

	// cleanRead is the number of bytes of the oldest file that one commit
	// reads.
	cleanRead = 1 << 20

	// cleanCredit is the number of bytes that may be copied for each other
	// byte written. It bounds the cost of cleaning, whatever the files
	// hold.
	cleanCredit = 8

	// cleanBackoff is the wait after a failed copy.
	cleanBackoff = 10 * time.Second
)

// cleaner copies the live records of the oldest file to the current one. Files
// are removed oldest first, so one segment that stays would keep every later
// file:
//
//  1. S3 refuses one object, and its segment pins the oldest file.
//  2. A thousand later objects are delivered, and nothing pins their files.
//  3. None of these can be removed before the oldest one. The spool grows to
//     its limit, and Track returns errors.
//
// A copy has the identity and the bytes of its record, so recovery takes either
// of them once. The pin moves to the current file when the copy is fsynced.
// Then the oldest file is unpinned, and is removed like any other file. So a
// crash at any moment leaves each live record in at least one file.
//
//	oldest                              current
//	+---+-------+---+-----------+       +---------------+---+---+
//	| a | dead  | b | dead      |  ...  | group         | a | b |
//	+---+-------+---+-----------+       +---------------+---+---+
//
// Nothing is copied once its "delivered" record is fsynced. So that record is
// never in an earlier file than a copy of a record that it cancels, and oldest
// first stays a safe order of removal.
//
// The cleaner is guarded by the journal's commitMu.
type cleaner struct {
	files        *files
	limit        int64 // bytes that all files together should not exceed; 0: no limit
	stepBytes    int64 // bytes to copy in one commit; the last record may exceed it
	writtenBytes int64 // bytes written, without copies
	copiedBytes  int64 // bytes copied

	started bool        // recovery has ended
	damaged []segmentID // salvaged segments, see start

	window     *window // reads the oldest file; nil: none
	nextOffset int64   // records before this offset of the oldest file are copied
	stepEnd    int64   // becomes nextOffset if the commit succeeds
	batch      []liveRecord
	retryAt    time.Time // after an error, no copy before this time
}

// liveRecord is a live record of the oldest file.
type liveRecord struct {
	kind    recordType
	body    []byte
	segment segmentID
	block   blockID // of a stage
	from    extent  // the record, and its copy
	to      extent
	payload int64 // bytes of lines or payload at the end
}

func (l *liveRecord) encode(w *writer) {
	w.begin(l.kind)
	w.buf = append(w.buf, l.body...)
	w.end()
}

// isWorthwhile reports whether to clean the oldest file. One pass over all
// files copies every live byte and frees every dead one. It begins when the
// dead bytes exceed the live ones and a file. So each copied byte frees at
// least one, and the spool stays within twice its live bytes and two files. A
// spool over three quarters of its limit is cleaned until one file of dead
// bytes is left.
func (c *cleaner) isWorthwhile() bool {
	fs := c.files
	if !c.started || len(fs.all) == 0 || c.copiedBytes > cleanCredit*c.writtenBytes {
		return false
	}
	if slices.ContainsFunc(c.damaged, func(id segmentID) bool { return len(fs.segmentPins[id]) > 0 }) {
		return false
	}
	if f := fs.all[0]; f == fs.current || f.uncopyable || f.liveBytes == 0 {
		return false
	}
	size, live := fs.totalBytes(), fs.liveBytes()
	dead := size - live
	return dead > live+fs.maxFileBytes || c.limit > 0 && size > c.limit/4*3 && dead > fs.maxFileBytes
}

// start allows cleaning, after recovery. Cleaning begins only when the salvaged
// segments have no pins left:
//
//  1. Recovery moves a block from damaged segment 1 to segment 2.
//  2. Cleaning copies the frame of segment 1 to a file after the file with
//     segment 2.
//  3. After a crash, recovery finds the block in both and takes the later
//     frame. It salvages segment 2, although its object may be in S3.
func (c *cleaner) start(parts []UnfinishedPartition) {
	for _, p := range parts {
		for _, b := range p.Damaged {
			c.damaged = append(c.damaged, b.Segment.id())
		}
	}
	c.started = true
}

// countWritten counts bytes written that are not copies.
func (c *cleaner) countWritten(bytes int64) { c.writtenBytes += bytes }

// ready reports whether the next commit should copy records, now or later
// because an earlier copy failed.
func (c *cleaner) ready() (now, later bool) {
	if !c.isWorthwhile() {
		return false, false
	}
	later = time.Now().Before(c.retryAt)
	return !later, later
}

// nextBatch returns the records that the next commit copies.
func (c *cleaner) nextBatch() []liveRecord {
	c.batch = nil
	if now, _ := c.ready(); !now {
		c.window = nil
		return nil
	}
	if f := c.files.all[0]; c.window == nil || c.window.f != f {
		c.window, c.nextOffset = c.files.newWindow(f, min(f.size, f.syncedTo), false), fileHeaderSize
	}
	if err := c.readBatch(); err != nil {
		c.finishBatch(err)
		return nil
	}
	if len(c.batch) == 0 {
		c.finishBatch(nil)
	}
	return c.batch
}

// readBatch reads the next live records. Bytes above the watermark are not
// read, because recovery has rewritten their records.
func (c *cleaner) readBatch() error {
	c.stepEnd = c.nextOffset
	for copied := int64(0); c.stepEnd < c.window.size && c.stepEnd < c.nextOffset+cleanRead && copied < c.stepBytes; {
		rec, err := c.window.record(c.stepEnd)
		if errors.Is(err, errInvalidRecord) { // damage, which recovery has reported
			c.stepEnd, err = c.window.nextRecord(c.stepEnd + 1)
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if l := c.asLive(rec); l != nil {
			if err := c.readBody(l, rec); err != nil {
				return err
			}
			c.batch = append(c.batch, *l)
			copied += l.from.size
		}
		c.stepEnd = rec.end()
	}
	return nil
}

// asLive returns the record if it is live, or nil.
func (c *cleaner) asLive(rec record) *liveRecord {
	f := c.window.f
	if _, ok := f.superseded[rec.end()]; ok {
		return nil
	}
	l := &liveRecord{kind: rec.kind, from: extent{f, rec.offset, rec.end() - rec.offset}}
	switch rec.kind {
	case recordStage:
		s, size, err := decodeStage(rec.prefix, rec.length, nil)
		if l.block, l.payload = s.blockID, size; err == nil && isPinned(c.files.blockPins, l.block, f) {
			return l
		}
	case recordFrame:
		r, size, err := decodeFrame(rec.prefix, rec.length, nil)
		if l.segment, l.payload = r.segmentID, size; err == nil && isPinned(c.files.segmentPins, l.segment, f) {
			return l
		}
	case recordSeal:
		s, err := decodeSeal(rec.prefix, nil)
		if l.segment = s.segmentID; err == nil && isPinned(c.files.segmentPins, l.segment, f) {
			return l
		}
	}
	return nil
}

// readBody reads the body of a record, and checks it again.
func (c *cleaner) readBody(l *liveRecord, rec record) error {
	l.body = make([]byte, rec.length)
	if _, err := c.files.readAt(l.from.file, l.body, rec.body.offset); err != nil {
		return err
	}
	if crc32.Update(l.from.file.salt, castagnoli, l.body) != rec.bodyCRC {
		return ErrDamaged
	}
	return nil
}

// finishBatch moves the pins to the copies if they are on disk. After an error
// it schedules the next try.
func (c *cleaner) finishBatch(err error) {
	if err != nil {
		c.retryAt, c.window = time.Now().Add(cleanBackoff), nil
		return
	}
	fs := c.files
	for i := range c.batch {
		l := &c.batch[i]
		c.copiedBytes += l.from.size
		if l.kind == recordStage {
			unpin(fs.blockPins, l.block, l.from.file, l.from.size)
			addPin(fs.blockPins, l.block, l.to.pin())
		} else {
			unpin(fs.segmentPins, l.segment, l.from.file, l.from.size)
			addPin(fs.segmentPins, l.segment, l.to.pin())
		}
		if l.payload > 0 {
			fs.redirect(l.from.suffix(l.payload), l.to.suffix(l.payload))
		}
	}
	c.batch, c.nextOffset = nil, c.stepEnd
	if c.nextOffset >= c.window.size {
		c.window.f.uncopyable = c.window.f.liveBytes > 0 // some records could not be read
		c.window = nil
	}
}
