package spool

import (
	"fmt"
	"runtime"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
)

// maxStage bounds the lines of a stage record, and so the bytes that recovery
// reads at once.
const maxStage = 1 << 20

// commit is the result of one commit, for the callers that wait for it.
type commit struct {
	waiters int
	done    chan struct{}
	err     error
}

// isDone reports whether the commit has ended.
func (c *commit) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// entry is a queued record and its callbacks.
type entry struct {
	encode        func(*writer) error
	onSynced      func(extent) // called with the place of the record
	onGroupSynced func()       // called after onSynced of every entry in the group
	payloadBytes  int64
	writtenAt     extent // place of the record, set when it is encoded

	segment     segmentID // of a frame or a seal
	framedBlock *blockID  // nil if this is no frame
	textBytes   int64     // length of the strings in the record
	drainsSpool bool      // may be written ahead of other entries on a full volume
}

// group is the content of one commit: copies, then stages, then frames and
// seals in the order of the queue. This order puts a seal after
// its frames, also if a crash cuts the file.
type group struct {
	copies []liveRecord
	stages []Stage
	queue  []entry
}

func (g *group) empty() bool { return len(g.copies)+len(g.stages)+len(g.queue) == 0 }

// encoder returns a function that writes the group to a file.
func (g *group) encoder(j *Journal) func(*file, *writer) error {
	return func(f *file, w *writer) error {
		w.group(f.syncedTo)
		if f.groupLastID = j.lastID(); f.groupLastID > f.lastID {
			w.lastID(f.groupLastID)
		}
		for i := range g.copies {
			g.copies[i].encode(w)
			g.copies[i].to = w.lastExtent(f)
			if err := f.spill(w, maxQueued); err != nil {
				return err
			}
		}
		for i := range g.stages {
			if err := j.writeStage(&g.stages[i], f, w); err != nil {
				return err
			}
		}
		for i := range g.queue {
			if err := g.queue[i].encode(w); err != nil {
				return err
			}
			g.queue[i].writtenAt = w.lastExtent(f)
			if err := f.spill(w, maxQueued); err != nil {
				return err
			}
		}
		return f.spill(w, 0)
	}
}

func (j *Journal) loop() {
	for {
		select {
		case <-j.wake:
			j.commitMu.Lock()
			j.commit()
			j.commitMu.Unlock()
		case <-j.stop:
			j.commitUntilIdle()
			return
		}
	}
}

// commitUntilIdle commits until no caller waits, then marks the journal closed.
// Later calls of Commit return the result of the final commit, which included
// everything.
func (j *Journal) commitUntilIdle() {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.nextCommit.waiters++; j.nextCommit.waiters > 0; {
		j.mu.Unlock()
		j.commit()
		j.mu.Lock()
	}
	j.closed = true
}

// yield lets goroutines that the previous commit woke run first, so that their
// new lines join this commit.
//
//  1. A commit ends and wakes its 64 callers. One of them runs, adds a line,
//     and commits on its own goroutine.
//  2. Without a yield, this commit has one or a few lines, and the other
//     callers wait for the next fsync.
//  3. With it, the others add their lines first. With 64 callers a commit has
//     twice as many lines.
//
// The yield also runs every other goroutine that is ready, which is slow when
// the processors are busy. If it gained callers more slowly than the time
// before it did, the next yields are skipped for a while.
func (j *Journal) yield() {
	if j.lastGroup < 2 {
		return
	}
	began, before := time.Now(), j.waiters()
	if before == 0 || began.Before(j.noYieldBefore) {
		return
	}
	runtime.Gosched()
	now := time.Now()
	took := now.Sub(began)
	j.noYieldBefore = now.Add(yieldBackoff(before, began.Sub(j.lastGroupBegan), j.waiters()-before, took))
}

// yieldBackoff returns the time during which yields are skipped. It is 0 if the
// yield gained callers at the rate of the time before it or faster. Otherwise
// it is four times the duration of the yield.
func yieldBackoff(before int, in time.Duration, joined int, took time.Duration) time.Duration {
	if float64(joined)*float64(in) >= float64(before)*float64(took) {
		return 0
	}
	return 4 * took
}

// waiters returns the number of callers of the next commit. It includes callers
// whose ctx has ended.
func (j *Journal) waiters() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.nextCommit.waiters
}

// commit writes the queue and the gathered stages, and fsyncs them. When no
// caller waits, it omits lines younger than half the interval.
//
// Gather precedes the reading of the queue. If a block is compressed between
// the two, its lines are in a stage and in a frame, and recovery ignores the
// stage. In the other order they could be in neither:
//
//  1. commit takes the queue.
//  2. A block is compressed. Its frame is queued, so Gather omits the block.
//  3. The commit acknowledges lines that it did not write.
func (j *Journal) commit() {
	j.yield()
	j.mu.Lock()
	c := j.nextCommit
	j.nextCommit = &commit{done: make(chan struct{})}
	seen := j.changes // changes after this may miss the Gather below
	j.mu.Unlock()

	before := time.Now()
	gatherBefore := before
	if c.waiters > 0 {
		j.lastGroup, j.lastGroupBegan = c.waiters, before
	} else {
		gatherBefore = gatherBefore.Add(-j.set.Interval / 2)
	}
	stages, more := j.set.Gather(gatherBefore)
	stages = append(j.unsyncedStages, stages...)
	j.mu.Lock()
	if more {
		before = gatherBefore
		j.armTimerLocked()
	}
	queue := j.queue
	j.queue, j.queuedBytes = nil, 0
	j.mu.Unlock()

	done, left, err := j.writeGroup(group{copies: j.cleaner.nextBatch(), stages: stages, queue: queue})
	j.mu.Lock()
	j.err = err
	if err != nil {
		j.queue = append(left.queue, j.queue...)
		j.armTimerLocked()
	} else {
		j.noteCommitLocked(before, seen, more)
	}
	j.mu.Unlock()
	j.unsyncedStages = left.stages
	if !done.empty() {
		j.finishGroup(done)
	}
	j.removeOldest() // also after an error: removal makes room on a full volume
	j.scheduleCleaning()
	j.files.renewReserve()
	j.totalBytes.Store(j.files.totalBytes())
	j.measureVolume()
	c.err = err
	close(c.done)
}

// noteCommitLocked notes that everything older than before is on disk. If
// Gather left nothing for a later commit, the changes up to seen are on disk
// too.
func (j *Journal) noteCommitLocked(before time.Time, seen uint64, more bool) {
	if before.After(j.syncedBefore) {
		j.syncedBefore = before
	}
	if !more {
		j.syncedChanges = seen
	}
}

// writeGroup writes a group, and retries once in a new file. If writing it with
// the copies fails, it writes it without them, because the volume may have no
// room for copies. It returns the parts of the group that are on disk, and
// those that are not.
func (j *Journal) writeGroup(all group) (done, left group, err error) {
	tries := 2
	if len(all.copies) > 0 {
		tries = 1
		err := j.tryGroup(all, j.roomToCopy(), 1)
		if j.cleaner.finishBatch(err); err == nil {
			return all, group{}, nil
		}
		all.copies = nil
	}
	if all.empty() {
		return all, group{}, nil
	}
	err = j.tryGroup(all, j.files.reserve.room()/2, tries)
	if err == nil {
		return all, group{}, nil
	}
	if vfs.IsFull(err) {
		done.queue, all.queue = j.writeToFullVolume(all.queue)
		all.stages = j.dropFramedStages(all.stages, done.queue)
	}
	if all.empty() {
		return done, all, nil
	}
	return done, all, fmt.Errorf("commit to the journal: %w", err)
}

// tryGroup writes a group at most tries times. It fails at once if the group is
// larger than room. When room is short, an empty group after g records that g was
// fsynced. Otherwise a recovery after a crash would have to write g again, and
// might find no room for it.
func (j *Journal) tryGroup(g group, room int64, tries int) error {
	if size := g.size(); size > room {
		return fmt.Errorf("the volume has room for %d more bytes, the commit needs %d: %w", max(0, room), size, vfs.ErrFull)
	}
	err := j.files.appendAndSync(g.encoder(j))
	if err != nil && tries > 1 {
		err = j.files.appendAndSync(g.encoder(j))
	}
	if err == nil && g.size() > room/4 {
		_ = j.files.appendAndSync(new(group).encoder(j)) // g is on disk with or without it
	}
	return err
}

// writeStage writes lines as records of at most maxStage bytes of lines each.
func (j *Journal) writeStage(s *Stage, f *file, w *writer) error {
	record := stageRecord{
		blockID: blockID{j.run, s.Partition, s.Block},
		source:  s.Source, day: s.Day, offset: s.Offset, first: s.First, last: s.Last,
	}
	var pieces [][]byte
	size := 0
	s.pin = pin{file: f}
	write := func() error {
		w.stage(&record, pieces)
		s.pin.records++
		s.pin.bytes += w.lastExtent(f).size
		record.offset += int64(size)
		pieces, size = pieces[:0], 0
		return f.spill(w, maxQueued)
	}
	for _, piece := range s.Lines {
		for len(piece) > 0 {
			n := min(len(piece), maxStage-size)
			pieces, size = append(pieces, piece[:n]), size+n
			piece = piece[n:]
			if size < maxStage {
				continue
			}
			if err := write(); err != nil {
				return err
			}
		}
	}
	if size == 0 {
		return nil
	}
	return write()
}

// finishGroup pins the files of a group that is on disk, and runs its
// callbacks.
func (j *Journal) finishGroup(g group) {
	for i := range g.stages {
		s := &g.stages[i]
		addPin(j.files.blockPins, blockID{j.run, s.Partition, s.Block}, s.pin)
		j.cleaner.countWritten(s.pin.bytes)
		s.Release()
	}
	for i := range g.queue {
		if e := &g.queue[i]; e.onSynced != nil {
			e.onSynced(e.writtenAt)
			j.cleaner.countWritten(e.writtenAt.size)
		}
	}
	for i := range g.queue {
		if e := &g.queue[i]; e.onGroupSynced != nil {
			e.onGroupSynced()
		}
	}
	j.files.endIfFull()
}

// scheduleCleaning requests the next commit if the cleaner has work.
func (j *Journal) scheduleCleaning() {
	switch now, later := j.cleaner.ready(); {
	case now:
		j.requestCommit()
	case later:
		j.mu.Lock()
		j.armTimerLocked()
		j.mu.Unlock()
	}
}

// removeOldest removes at most one file, because callers wait for the commit.
// It requests another commit if more files can go.
func (j *Journal) removeOldest() {
	switch more, err := j.files.removeUnpinned(1); {
	case more:
		j.requestCommit()
	case err != nil: // retry even if no caller commits, to make room
		j.mu.Lock()
		j.armTimerLocked()
		j.mu.Unlock()
	}
}
