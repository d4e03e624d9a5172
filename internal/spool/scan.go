package spool

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"strconv"

	"github.com/s3sink/s3sink/internal/vfs"
)

var journalName = regexp.MustCompile(`^([0-9a-f]{16})-([0-9a-f]{8})\.journal$`)

// IsFileName reports whether name is that of a journal file or of the reserve.
func IsFileName(name string) bool { return journalName.MatchString(name) || name == reserveName }

// listFiles returns the journal files of a directory, oldest first. It ignores
// all other files.
func listFiles(dir vfs.Dir) ([]*file, error) {
	entries, err := dir.List()
	if err != nil {
		return nil, err
	}
	var all []*file
	for _, e := range entries {
		m := journalName.FindStringSubmatch(e.Name)
		if m == nil || e.Type != 0 {
			continue
		}
		number, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			continue
		}
		all = append(all, &file{name: e.Name, number: number, size: e.Size})
	}
	slices.SortFunc(all, func(a, b *file) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

// readHeader reads the file header. If the header is not whole, it takes the
// salt from the file's name and returns errInvalidRecord.
func (fs *files) readHeader(f *file, w *window) error {
	b, err := w.bytesAt(0, fileHeaderSize)
	if err != nil {
		return err
	}
	h, err := decodeFileHeader(b)
	if err == nil && h.number != f.number {
		err = errInvalidRecord // the file was renamed
	}
	f.salt = h.salt
	if errors.Is(err, errInvalidRecord) {
		f.salt = saltOf(f.name)
	}
	return err
}

// saltOf returns the salt that is part of a file's name.
func saltOf(name string) uint32 {
	random, _ := hex.DecodeString(journalName.FindStringSubmatch(name)[2])
	return binary.LittleEndian.Uint32(random)
}

// readWatermarks reads the watermarks that a file has of earlier files. It
// reports whether they are complete, which the group after them shows.
func (fs *files) readWatermarks(f *file, zeroFill bool) (watermarks []watermarkRecord, complete bool, err error) {
	w := fs.newWindow(f, f.size, zeroFill)
	err = fs.readHeader(f, w)
	if errors.As(err, new(errVersion)) || errors.Is(err, errInvalidRecord) {
		return nil, false, nil // scan reports it
	}
	if err != nil {
		return nil, false, err
	}
	_, err = w.records(fileHeaderSize, func(rec record) error {
		if rec.kind != recordWatermark {
			complete = rec.kind == recordGroup
			return errInvalidRecord // watermarks precede all other records
		}
		d, err := decodeWatermark(rec.prefix)
		watermarks = append(watermarks, d)
		return err
	})
	return watermarks, complete, err
}

// loadWatermarks finds the files whose end may not be fsynced, before this run
// creates a file:
//
//   - The last file, because the process may have died before its fsync.
//   - The file before a file whose watermarks are torn, because the lost ones
//     may have named it.
//
// It notes watermark 0 for each of them, and the watermarks that they have of
// other files: a power failure may take those back, so the next file repeats
// them.
func (fs *files) loadWatermarks(old []*file) error {
	for i := len(old) - 1; i >= 0; i-- {
		watermarks, complete, err := fs.readWatermarks(old[i], true)
		if err != nil && !errors.Is(err, errDiskUnreadable) { // treat an unreadable file like a torn one
			return err
		}
		syncedTo := map[uint64]int64{old[i].number: 0}
		for _, m := range watermarks {
			syncedTo[m.file] = max(syncedTo[m.file], m.syncedTo)
		}
		fs.mergeWatermarks(syncedTo)
		if complete {
			break
		}
	}
	return nil
}

// mergeWatermarks merges watermarks, by file number, into those that the next
// file's header gets. It reports whether any was added or raised.
func (fs *files) mergeWatermarks(syncedTo map[uint64]int64) (changed bool) {
	known := map[uint64]int{}
	for i, d := range fs.watermarks {
		known[d.file] = i
	}
	for _, f := range fs.oldFiles {
		to, ok := syncedTo[f.number]
		if !ok {
			continue
		}
		if i, ok := known[f.number]; !ok {
			fs.watermarks = append(fs.watermarks, watermarkRecord{f.number, to})
		} else if fs.watermarks[i].syncedTo < to {
			fs.watermarks[i].syncedTo = to
		} else {
			continue
		}
		changed = true
	}
	return changed
}

// fileScan is the scan of one file of a previous run.
type fileScan struct {
	r             *recovery
	w             *window
	syncedTo      int64 // watermark of the file
	hasWatermark  bool  // groups in the file may raise the watermark
	firstUnsynced int   // index in r.unsynced of the file's first record
}

// scan reads one file. Below the file's watermark every byte was fsynced, so an
// invalid record is damage, and the scan skips to the next valid record. Above
// it, an invalid record is the torn end that a crash left, and the scan stops.
//
// A file that no later file names was fsynced to its end. For the others the
// watermark is the greatest in later files and in the file's own groups.
func (r *recovery) scan(f *file) error {
	w := r.j.files.newWindow(f, f.size, r.unreadableIsDamaged)
	headerErr := r.j.files.readHeader(f, w)
	if errors.As(headerErr, new(errVersion)) {
		r.result.UnknownVersion = append(r.result.UnknownVersion, f.name)
		f.pins++ // never remove it
		return nil
	}
	if headerErr != nil && !errors.Is(headerErr, errInvalidRecord) {
		return headerErr
	}
	syncedTo, named := r.syncedTo[f.number]
	if !named {
		syncedTo = f.size
	}
	r.scanSyncedTo = syncedTo
	s := &fileScan{r: r, w: w, syncedTo: syncedTo, hasWatermark: named, firstUnsynced: len(r.unsynced)}
	end := int64(0) // a damaged header is where the first damaged range begins
	if headerErr == nil {
		var err error
		if end, err = w.records(fileHeaderSize, s.visit); err != nil {
			return err
		}
	}
	end, err := s.skipDamage(end)
	if err != nil {
		return err
	}
	return s.finish(end)
}

// visit applies a record. A group's watermark can show that earlier records of
// the file are on disk.
func (s *fileScan) visit(rec record) error {
	if rec.kind != recordGroup || !s.hasWatermark {
		return s.r.apply(rec)
	}
	syncedTo, err := decodeGroup(rec.prefix)
	s.syncedTo = max(s.syncedTo, syncedTo)
	s.r.setSyncedTo(s.firstUnsynced, s.syncedTo)
	return err
}

// skipDamage notes the damaged ranges below the watermark, and applies the
// records after each of them. It returns the end of the last valid record or, if
// that is greater, of the last damaged range.
func (s *fileScan) skipDamage(end int64) (int64, error) {
	if s.hasWatermark {
		syncedTo, err := s.w.maxGroupWatermark(end)
		if s.syncedTo = max(s.syncedTo, syncedTo); err != nil {
			return end, err
		}
	}
	for end < min(s.syncedTo, s.w.f.size) {
		next, err := s.w.nextRecord(end + 1)
		if err != nil {
			return end, err
		}
		s.r.addDamage(s.w.f, end, min(next, s.syncedTo))
		if next > s.syncedTo {
			return s.syncedTo, nil
		}
		if end, err = s.w.records(next, s.visit); err != nil {
			return end, err
		}
	}
	return end, nil
}

// finish notes a truncation, the watermark of the file, and the length of its
// torn end.
func (s *fileScan) finish(end int64) error {
	f := s.w.f
	if end < s.syncedTo {
		s.r.addDamage(f, end, end)
	}
	f.syncedTo = s.syncedTo
	s.r.setSyncedTo(s.firstUnsynced, s.syncedTo)
	dataEnd, err := s.w.endOfData(min(end, f.size))
	s.r.result.TornBytes += max(0, dataEnd-end)
	if s.w.sawUnreadable {
		s.r.addDamagedFile(f)
	}
	return err
}

// setSyncedTo raises the watermark of the scanned file, and drops the records
// below it from r.unsynced. The records of this file begin there at index first.
func (r *recovery) setSyncedTo(first int, syncedTo int64) {
	r.scanSyncedTo = syncedTo
	rest := slices.DeleteFunc(r.unsynced[first:], func(d unsyncedRecord) bool { return d.body.offset+d.body.size <= syncedTo })
	r.unsynced = r.unsynced[:first+len(rest)]
}

// apply adds one record to the result. A record that was applied before is
// recognized by its identity, and the later copy wins.
func (r *recovery) apply(rec record) error {
	switch rec.kind {
	case recordStage:
		return r.applyStage(rec)
	case recordFrame:
		return r.applyFrame(rec)
	case recordSeal:
		s, err := decodeSeal(rec.prefix, r.names)
		if err == nil {
			old := r.segment(s.segmentID)
			if !old.forgotten() {
				if old.seal != nil {
					supersede(r.segmentPins, s.segmentID, old.sealAt)
				}
				old.seal, old.sealAt = &s, rec.body
				r.compactIfComplete(old)
			}
			if !old.delivered {
				r.pinSegment(rec, s.segmentID)
			}
			r.noteIfUnsynced(rec, unsyncedRecord{segment: s.segmentID})
		}
		return err
	case recordDelivered:
		d, err := decodeDelivered(rec.prefix, r.names)
		if err == nil {
			old := r.segment(d.segmentID)
			if old.delivered = true; !r.keepAllFrames {
				old.forget()
			}
			unpinAll(r.segmentPins, d.segmentID)
			r.noteIfUnsynced(rec, unsyncedRecord{segment: d.segmentID})
		}
		return err
	case recordLastID:
		id, err := decodeLastID(rec.prefix)
		if err == nil {
			rec.body.file.lastID = max(rec.body.file.lastID, id)
			r.result.LastID = max(r.result.LastID, id)
		}
		return err
	case recordGroup, recordWatermark:
		return nil
	}
	return nil // a type of a later version that this version may skip
}

func (r *recovery) segment(id segmentID) *oldSegment {
	s := r.segments[id]
	if s == nil {
		s = &oldSegment{seg: NewSegment(Header{RunID: id.run, Sequence: id.sequence})}
		r.segments[id] = s
	}
	return s
}

// partition returns the partition of a block, and adds it if it is new.
func (r *recovery) partition(id blockID) *oldPartition {
	id.block = 0
	p := r.partitions[id]
	if p == nil {
		p = &oldPartition{id: id}
		r.partitions[id] = p
	}
	return p
}

// compactIfComplete drops the frame metadata of a complete segment, except in
// the second pass.
func (r *recovery) compactIfComplete(s *oldSegment) {
	if !r.keepAllFrames {
		s.compact()
	}
}

// pinSegment pins the record's file for a segment. Files of this run have their
// pins already.
func (r *recovery) pinSegment(rec record, id segmentID) {
	if !r.rereadingOwnWrites {
		addPin(r.segmentPins, id, rec.pin())
	}
}

// supersede unpins a record that has a later copy; at ends where the record
// ends. A cleaner or an interrupted recovery made the copy. The cleaner must
// not copy the record again.
func supersede[K comparable](owners map[K][]pin, id K, at extent) {
	f := at.file
	if !unpin(owners, id, f, at.size) {
		return // the record is in a file of this run
	}
	if f.superseded == nil {
		f.superseded = map[int64]struct{}{}
	}
	f.superseded[at.end()] = struct{}{}
}

// noteIfUnsynced adds a record to r.unsynced if it is above the watermark.
// Records that this run wrote are on disk.
func (r *recovery) noteIfUnsynced(rec record, d unsyncedRecord) {
	if r.rereadingOwnWrites || rec.end() <= r.scanSyncedTo {
		return
	}
	d.kind, d.body, d.crc = rec.kind, rec.body, rec.bodyCRC
	r.unsynced = append(r.unsynced, d)
}

func (r *recovery) applyStage(rec record) error {
	s, size, err := decodeStage(rec.prefix, rec.length, r.names)
	if err != nil {
		return err
	}
	p := r.partition(s.blockID)
	p.setDestination(s.source, s.day)
	if p.segmentOf(s.block) != nil {
		return nil
	}
	b := r.blocks[s.blockID]
	if b == nil {
		b = &oldBlock{stage: s, last: s.last}
		r.blocks[s.blockID] = b
	}
	if s.first.Before(b.stage.first) {
		b.stage.first = s.first
	}
	if s.last.After(b.last) {
		b.last = s.last
	}
	index := b.find(s.offset, size)
	if index < len(b.stages) {
		supersede(r.blockPins, s.blockID, b.stages[index].at)
		b.stages[index].at = rec.body.suffix(size)
	} else {
		b.stages = append(b.stages, stagedLines{at: rec.body.suffix(size), offset: s.offset})
	}
	if !r.rereadingOwnWrites {
		addPin(r.blockPins, s.blockID, rec.pin())
	}
	r.noteIfUnsynced(rec, unsyncedRecord{block: s.blockID, index: uint64(index), payload: size})
	return nil
}

// find returns the index of the stage at an offset, or the next free index.
// Stages almost always come in order.
func (b *oldBlock) find(offset, size int64) int {
	next := len(b.stages)
	if next == 0 || b.stages[next-1].offset < offset {
		return next
	}
	i := slices.IndexFunc(b.stages, func(p stagedLines) bool { return p.offset == offset && p.at.size == size })
	if i < 0 {
		return next
	}
	return i
}

func (r *recovery) applyFrame(rec record) error {
	f, size, err := decodeFrame(rec.prefix, rec.length, r.names)
	if err != nil {
		return err
	}
	delete(r.blocks, f.block)
	unpinAll(r.blockPins, f.block)

	p, s := r.partition(f.block), r.segment(f.segmentID)
	if f.header != nil {
		p.setDestination(f.header.Source, f.header.Day)
	}
	if !s.hasFrame(f.index) {
		if in := p.segmentOf(f.block.block); in != nil && in != s && !r.keepAllFrames {
			return errBlockInTwoSegments
		}
		p.setSegment(f.block.block, s)
	}
	if f.header != nil && !s.forgotten() {
		s.seg.Header = *f.header
		s.partition = p
	}
	if !s.forgotten() {
		if before, ok := s.extentOf(f.index); ok {
			supersede(r.segmentPins, f.segmentID, before)
		}
		s.putFrame(packFrame(&f, rec.body.suffix(size), p))
		r.compactIfComplete(s)
	}
	if !s.delivered {
		r.pinSegment(rec, f.segmentID)
	}
	r.noteIfUnsynced(rec, unsyncedRecord{segment: f.segmentID, index: f.index, payload: size})
	return nil
}
