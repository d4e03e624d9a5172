package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Recovered is the result of [Journal.Recover]: the undelivered data of
// previous runs, and the damage that was found.
type Recovered struct {
	Sealed     []*Segment            // sealed and not delivered, oldest first
	Unfinished []UnfinishedPartition // partitions without a sealed segment for all their lines, oldest first

	TornBytes      int64    // bytes at the ends of files that no successful commit covered
	DamagedFiles   []string // files whose fsynced bytes no longer read back
	DamagedBytes   int64    // fsynced bytes that no longer read back
	CopiedBytes    int64    // bytes copied to the "corrupt" subdirectory
	CopyErr        error    // why some damaged bytes have no copy, or nil
	Quarantined    int64    // events of frames without a source and day, and of segments without a frame
	UnknownVersion []string // files of another format version; they are not touched
	LastID         uint64   // greatest id drawn by a previous run; the ids of this run must be greater
}

// LostEvents returns the number of events that cannot be delivered. It counts
// only events that a surviving frame or seal mentions.
func (r *Recovered) LostEvents() int64 {
	n := r.Quarantined
	for _, t := range r.Unfinished {
		for _, b := range t.Damaged {
			n += b.LostEvents
		}
	}
	return n
}

// UnfinishedPartition is one partition of a previous run that had not been
// sealed. It has the open segment, if any, and the blocks that were staged but
// have no frame. It also has the surviving frames of damaged segments, as
// blocks.
type UnfinishedPartition struct {
	Segment             *Segment // open segment, or nil
	Source              string
	Day                 time.Time
	Blocks              []RecoveredBlock
	BlocksBeforeSegment int              // number of Blocks that precede the frames of Segment
	Damaged             []DamagedSegment // remove each one once its blocks are in other segments
}

// DamagedSegment is a segment with missing frames. Its surviving frames are
// delivered in a new object, because the old key may already hold the complete
// object.
type DamagedSegment struct {
	Segment    *Segment
	LostEvents int64 // events that its seal counts and no surviving frame has
}

// recovery is the state of one try of [Journal.Recover].
//
// A try reads every file of the previous runs and builds segments, blocks and
// partitions from the records. Then it copies damaged bytes to the "corrupt"
// subdirectory, fsyncs the files, and writes the records that may not be on
// disk to a file of this run.
type recovery struct {
	j                   *Journal
	files               []*file
	result              Recovered
	segments            map[segmentID]*oldSegment
	blocks              map[blockID]*oldBlock     // blocks without a frame
	partitions          map[blockID]*oldPartition // by block id with block 0
	names               names
	keepAllFrames       bool             // second pass: keep the metadata of every frame, about 13 KB per object instead of 2.5
	syncedTo            map[uint64]int64 // bytes known to be fsynced, by file number; files fsynced to their end are absent
	unsynced            []unsyncedRecord // records that may not be on disk, in the order of the scan
	scanSyncedTo        int64            // bytes of the scanned file that are known to be fsynced
	damagedRanges       []damagedRange   // in the order of the scan
	rereadingOwnWrites  bool             // the records being applied were written by this run
	unreadableIsDamaged bool             // read errors of the medium count as damage
	recordChanged       atomic.Bool      // an unsynced record no longer reads back as it was scanned

	segmentPins map[segmentID][]pin
	blockPins   map[blockID][]pin
}

type oldBlock struct {
	stage  stageRecord // first record found; its times are widened by the others
	last   time.Time
	stages []stagedLines
}

// unsyncedRecord is a record that the scan could read but that may not be on
// disk.
type unsyncedRecord struct {
	kind    recordType
	body    extent
	crc     uint32 // of the body; its seed is the salt of the file
	segment segmentID
	block   blockID // of a stage
	index   uint64  // index of the frame in its segment, or of the stage in its block
	payload int64   // bytes of lines or payload at the end of the body
}

// maxRecoverTries is the number of failed calls of [Journal.Recover] after
// which unreadable bytes count as damage. From then on recovery also goes on if
// damaged bytes cannot be copied. The caller retries every 10 seconds, so this
// is an hour.
const maxRecoverTries = 360

// errDiskUnreadable reports that no byte of any file can be read. The disk may
// come back complete, so nothing counts as damaged.
var errDiskUnreadable = errors.New("spool: the disk answers every read with an error")

// errBlockInTwoSegments reports two frames of one block. An earlier recovery
// was interrupted while it moved the block out of a damaged segment. Recover
// starts over with keepAllFrames.
var errBlockInTwoSegments = errors.New("spool: a block is in two segments")

var errUnstableReads = errors.New("spool: the journal files read differently at each try")

// Recover reads the files of previous runs. The caller repeats it until it
// returns nil, and may call every method except Append in between. When Recover
// returns nil, everything in its result is on disk. An error or a crash may
// interrupt it at any point, and the next call starts over. Recover
// decompresses nothing.
//
// Three losses explain its order. In the first, data is read from the page
// cache:
//
//  1. The process is killed after a write and before its fsync.
//  2. Recovery reads the record from the page cache and acts on it.
//  3. A power failure discards the page, and the record is lost.
//
// So syncFiles precedes every decision that leaves the process.
//
// In the second, a successful fsync proves nothing:
//
//  1. The fsync of a commit fails. The kernel marks the pages clean although
//     they did not reach the disk.
//  2. The process is killed. Recovery reads the records from the page cache,
//     and its own fsync returns nil.
//  3. A power failure discards the pages.
//
// So rewriteUnsynced writes every record above the watermark to a new file.
//
// In the third, damage is moved to a second segment:
//
//  1. Segment 1 lost a frame to damage. Its other blocks are appended to
//     segment 2.
//  2. A crash comes before the "delivered" record of segment 1 is on disk.
//  3. The next scan finds the blocks in both segments. If it had dropped the
//     metadata of segment 1's frames, it could not tell which of them are left
//     to move.
//
// So the scan stops with errBlockInTwoSegments, and a second pass keeps the
// metadata of all frames.
func (j *Journal) Recover(ctx context.Context) (*Recovered, error) {
	noted := uint64(0)
	if j.set.LastID != nil {
		var err error
		if noted, err = readNote(j.set.Dir); err != nil {
			return nil, err
		}
	}
	if len(j.oldFiles) == 0 {
		j.recoveredLastID.Store(noted)
		return &Recovered{LastID: noted}, nil
	}
	j.recoverCalls++
	keepAllFrames := false
	for range maxRecoverTries {
		r := &recovery{
			j: j, files: j.oldFiles, unreadableIsDamaged: j.recoverCalls > maxRecoverTries, keepAllFrames: keepAllFrames, result: Recovered{LastID: noted},
			segments: map[segmentID]*oldSegment{}, blocks: map[blockID]*oldBlock{}, partitions: map[blockID]*oldPartition{},
			names: names{}, syncedTo: map[uint64]int64{},
			segmentPins: map[segmentID][]pin{}, blockPins: map[blockID][]pin{},
		}
		err := r.run(ctx)
		if errors.Is(err, errBlockInTwoSegments) {
			keepAllFrames = true
			continue
		}
		if err != nil {
			return nil, err
		}
		if !r.recordChanged.Load() {
			r.collect()
			found := r.result // copied, so that the rest of r can be freed
			j.commitMu.Lock()
			j.cleaner.start(found.Unfinished)
			j.commitMu.Unlock()
			j.requestCommit()
			return &found, nil
		}
	}
	return nil, errUnstableReads
}

func (r *recovery) run(ctx context.Context) error {
	syncedTo := map[uint64]int64{} // later files repeat the watermarks of earlier ones
	for _, f := range r.files {
		f.pins, f.liveBytes, f.superseded = 0, 0, nil // a previous try has counted them
		watermarks, _, err := r.j.files.readWatermarks(f, r.unreadableIsDamaged)
		if err != nil {
			return err
		}
		for _, m := range watermarks {
			syncedTo[m.file] = max(syncedTo[m.file], m.syncedTo)
		}
	}
	r.j.commitMu.Lock()
	if r.j.files.mergeWatermarks(syncedTo) {
		r.j.files.endCurrent() // the next file's header has the merged watermarks
	}
	for _, m := range r.j.files.watermarks { // includes watermarks from files that were removed since a previous try
		r.syncedTo[m.file] = m.syncedTo
	}
	r.j.commitMu.Unlock()
	for _, f := range r.files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.scan(f); err != nil {
			return err
		}
	}
	if err := r.applyRewritten(); err != nil {
		return err
	}
	if err := r.copyDamaged(); err != nil {
		return err
	}
	if err := r.syncFiles(); err != nil {
		return err
	}
	r.deliverEarly()
	return r.rewriteUnsynced(ctx)
}

// applyRewritten applies the records that a previous try wrote to files of this
// run. Their originals in the old files may no longer be readable.
func (r *recovery) applyRewritten() error {
	r.rereadingOwnWrites = true
	var w *window
	for _, at := range r.j.rewritten {
		if w == nil || w.f != at.file {
			w = r.j.files.newWindow(at.file, 0, false)
		}
		w.size = at.offset + at.size
		rec, err := w.record(at.offset)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the file was removed because nothing pinned it
		}
		if err == nil {
			err = r.apply(rec)
		}
		if err != nil {
			return fmt.Errorf("read a rewritten record: %w", err)
		}
	}
	return nil
}

// syncFiles fsyncs every file that was read, and the directory. Nothing may be
// decided from data that a power failure could take back.
func (r *recovery) syncFiles() error {
	for _, f := range r.files {
		h, err := r.j.files.acquire(f)
		if r.unreadableIsDamaged && err != nil && isLost(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = h.file.Sync()
		r.j.files.releaseHandle(h)
		if err != nil {
			return err
		}
	}
	return r.j.set.Dir.Sync()
}

// deliverEarly hands over the sealed segments whose records are all known to be
// on disk: below the watermark of a file that was fsynced again. They need no
// write, so a full volume does not keep them from S3. A segment with a record
// above a watermark waits until rewriteUnsynced has written that record again.
func (r *recovery) deliverEarly() {
	if r.j.set.DeliverEarly == nil || len(r.damagedRanges) > 0 || r.unreadableIsDamaged {
		return
	}
	unsynced := map[segmentID]bool{}
	for i := range r.unsynced {
		unsynced[r.unsynced[i].segment] = true
	}
	var safe []*Segment
	for id, s := range r.segments {
		if s.delivered || s.seal == nil || unsynced[id] || r.j.deliveredEarly[id] {
			continue
		}
		if s.joinFrames(); s.matchesSeal() && !slices.ContainsFunc(s.frames, s.isInOtherSegment) {
			r.j.deliveredEarly[id] = true
			safe = append(safe, s.seg)
		}
	}
	// A later try may not see the group that raised a watermark. Record the
	// watermarks now, or that try would rewrite these segments and unpin
	// the file that has their frames.
	r.j.commitMu.Lock()
	r.raiseWatermarks()
	r.j.commitMu.Unlock()
	slices.SortFunc(safe, compareOpened)
	r.j.set.DeliverEarly(safe)
}

func compareOpened(a, b *Segment) int {
	return cmp.Or(a.Opened.Compare(b.Opened), cmp.Compare(a.Sequence, b.Sequence))
}

// rewriteStep is the number of record bytes that recovery writes in one commit.
// Callers of Commit wait for them.
const rewriteStep int64 = 1 << 20

// rewriteOverhead is the cost of a record in addition to its bytes.
const rewriteOverhead = 1 << 10

// rewriteUnsynced copies the records that may not be on disk to a file of this
// run, and then adopts the old files. A successful fsync after a failed one
// proves nothing, so the old copies cannot be relied on.
func (r *recovery) rewriteUnsynced(ctx context.Context) error {
	stepBytes, queued := cmp.Or(r.j.set.CopyStep, rewriteStep), int64(0)
	for _, d := range r.unsynced {
		if !r.isLive(d) {
			continue
		}
		cost := d.body.size + rewriteOverhead
		if queued += cost; queued > stepBytes {
			queued = cost
			if err := r.commitRewrites(ctx, func() {}); err != nil || r.recordChanged.Load() {
				return err
			}
		}
		r.enqueueRewrite(d)
	}
	r.j.recoveredLastID.Store(r.result.LastID) // the next group records it before any file that has it can be removed
	if err := r.commitRewrites(ctx, r.adoptFiles); err != nil {
		return err
	}
	if !r.recordChanged.Load() { // write a group, so that the next file exists and has the watermarks of the old ones
		r.j.enqueue(entry{drainsSpool: true, encode: func(*writer) error { return nil }})
		r.j.requestCommit()
	}
	return nil
}

// enqueueRewrite queues the copy of a record, and unpins the file that holds
// the original.
func (r *recovery) enqueueRewrite(d unsyncedRecord) {
	if d.kind == recordStage {
		unpin(r.blockPins, d.block, d.body.file, d.body.size+recordHeadSize)
	} else {
		unpin(r.segmentPins, d.segment, d.body.file, d.body.size+recordHeadSize)
	}
	copied := false
	r.j.enqueue(entry{
		payloadBytes: d.body.size, drainsSpool: true,
		encode: func(w *writer) error {
			if copied = !r.recordChanged.Load() && r.encodeCopy(w, d); !copied {
				r.recordChanged.Store(true)
			}
			return nil
		},
		onSynced: func(at extent) {
			if copied {
				r.noteRewritten(d, at)
			}
		},
	})
}

// commitRewrites waits until the queued copies are on disk, and runs then
// inside that commit. It does not run then if a record has changed.
func (r *recovery) commitRewrites(ctx context.Context, then func()) error {
	done := make(chan struct{})
	r.j.enqueue(entry{
		drainsSpool: true,
		encode:      func(*writer) error { return nil },
		onGroupSynced: func() {
			if !r.recordChanged.Load() {
				then()
			}
			close(done)
		},
	})
	r.j.requestCommit()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// adoptFiles adds the old files and their pins to those of the journal. The
// pins were counted during the scan.
func (r *recovery) adoptFiles() {
	files := r.j.files
	files.all, files.adopted = slices.Concat(r.files, files.all), true
	for _, id := range files.deliveredEarly {
		unpinAll(r.segmentPins, id)
	}
	files.deliveredEarly = nil
	files.segmentPins = mergePins(files.segmentPins, r.segmentPins)
	files.blockPins = mergePins(files.blockPins, r.blockPins)
	for _, f := range r.files {
		r.j.cleaner.countWritten(f.size)
	}
	r.publishWatermarks()
}

// mergePins merges the smaller map into the larger one. It runs inside a commit
// that Track may be waiting for, and previous runs may have left very many
// pins.
func mergePins[K comparable](a, b map[K][]pin) map[K][]pin {
	if len(a) < len(b) {
		a, b = b, a
	}
	for id, files := range b {
		a[id] = append(a[id], files...)
	}
	return a
}

// publishWatermarks ends the current file, so that the header of the next one
// has the current watermarks.
func (r *recovery) publishWatermarks() {
	r.raiseWatermarks()
	r.j.files.endCurrent()
}

// raiseWatermarks sets the watermarks of the old files to what the scan found.
// The caller holds commitMu.
func (r *recovery) raiseWatermarks() {
	files := r.j.files
	syncedTo := map[uint64]int64{}
	for _, f := range r.files {
		syncedTo[f.number] = f.syncedTo
	}
	for i := range files.watermarks {
		m := &files.watermarks[i]
		m.syncedTo = max(m.syncedTo, syncedTo[m.file]) // nothing was read of files of another version
	}
}

// isLive reports whether a record still matters: a stage of a block without a
// frame, a frame or seal of an undelivered segment, or a "delivered" record. A
// record with a later copy does not.
func (r *recovery) isLive(d unsyncedRecord) bool {
	var last extent
	switch d.kind {
	case recordStage:
		if b := r.blocks[d.block]; b != nil {
			last = b.stages[d.index].at
		}
	case recordFrame:
		if s := r.segments[d.segment]; !s.delivered {
			last, _ = s.extentOf(d.index)
		}
	case recordSeal:
		if s := r.segments[d.segment]; !s.delivered {
			last = s.sealAt
		}
	default:
		return true
	}
	return last.file == d.body.file && last.end() == d.body.end()
}

// encodeCopy copies a record. It returns false if the record no longer reads back
// with its checksum:
//
//  1. A write to the file fails. The kernel keeps the page, but not as dirty.
//  2. The scan reads a valid record from the page.
//  3. The kernel drops the page. The next read returns the older data on disk.
//
// Recovery then starts over, and reads the file as it is now.
func (r *recovery) encodeCopy(w *writer, d unsyncedRecord) (whole bool) {
	w.begin(d.kind)
	at := len(w.buf)
	w.buf = append(w.buf, make([]byte, d.body.size)...)
	_, err := r.j.files.readAt(d.body.file, w.buf[at:], d.body.offset)
	if err != nil || crc32.Update(d.body.file.salt, castagnoli, w.buf[at:]) != d.crc {
		w.buf = w.buf[:w.start]
		return false
	}
	w.end()
	return true
}

// noteRewritten notes the new place of a record.
func (r *recovery) noteRewritten(d unsyncedRecord, at extent) {
	r.j.rewritten = append(r.j.rewritten, at)
	switch d.kind {
	case recordStage:
		r.blocks[d.block].stages[d.index].at = at.suffix(d.payload)
		addPin(r.j.files.blockPins, d.block, at.pin())
	case recordFrame:
		r.segments[d.segment].setExtent(d.index, at.suffix(d.payload))
		addPin(r.j.files.segmentPins, d.segment, at.pin())
	case recordSeal:
		addPin(r.j.files.segmentPins, d.segment, at.pin())
	}
}

// unfinished is the unfinished partitions, by block id with block 0.
type unfinished map[blockID]*UnfinishedPartition

// partition returns the partition of a block, and adds it if it is new.
func (u unfinished) partition(id blockID, source string, day time.Time) *UnfinishedPartition {
	id.block = 0
	if u[id] == nil {
		u[id] = &UnfinishedPartition{Source: source, Day: day}
	}
	return u[id]
}

// collect turns the scanned segments and blocks into the Recovered result.
func (r *recovery) collect() {
	parts := unfinished{}
	for _, id := range slices.SortedFunc(maps.Keys(r.segments), compareSegments) {
		s := r.segments[id]
		if s.delivered || r.j.deliveredEarly[id] {
			continue
		}
		if s.joinFrames(); r.isDamaged(s) {
			r.salvage(s, parts)
			continue
		}
		if s.seal != nil {
			r.result.Sealed = append(r.result.Sealed, s.seg)
			continue
		}
		if p := parts.partition(s.partition.id, s.seg.Source, s.seg.Day); p.Segment == nil {
			p.Segment = s.seg
		} else { // a partition has one open segment
			r.salvage(s, parts)
		}
	}
	for id, b := range r.blocks {
		block := b.recovered(id, r.j.files)
		if block == nil {
			r.j.releaseBlock(id)
			continue
		}
		p := parts.partition(id, b.stage.source, b.stage.day)
		p.Blocks = append(p.Blocks, *block)
	}
	// Runs in their order, and the partitions of a run in theirs: this keeps the
	// events of a source in order.
	order := slices.SortedFunc(maps.Keys(parts), func(a, b blockID) int {
		return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.partition, b.partition))
	})
	for _, id := range order {
		p := parts[id]
		slices.SortFunc(p.Blocks, func(a, b RecoveredBlock) int { return cmp.Compare(a.Block, b.Block) })
		p.BlocksBeforeSegment = r.blocksBeforeSegment(p)
		r.result.Unfinished = append(r.result.Unfinished, *p)
	}
	slices.SortFunc(r.result.Sealed, compareOpened)
}

// blocksBeforeSegment returns the number of blocks that precede the partition's
// open segment.
func (r *recovery) blocksBeforeSegment(p *UnfinishedPartition) int {
	if p.Segment == nil {
		return 0
	}
	first := r.segments[p.Segment.id()].frames[0].block
	n, _ := slices.BinarySearchFunc(p.Blocks, first, func(b RecoveredBlock, first uint64) int { return cmp.Compare(b.Block, first) })
	return n
}
