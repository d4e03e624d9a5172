package spool

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
)

const (
	// fileSize is the largest size limit of a journal file. The commit that
	// reaches the limit is the last one of its file.
	fileSize = 64 << 20

	// maxQueued is the number of queued payload bytes that starts a commit
	// before the next tick.
	maxQueued = 4 << 20
)

// JournalSettings do not change during the life of a journal.
type JournalSettings struct {
	Dir          vfs.Dir
	RunID        string
	Interval     time.Duration // between commits that no caller waits for
	FileSize     int64         // size limit of a file, at most 64 MiB; 0: 64 MiB
	Limit        int64         // bytes that all files together should not exceed; 0: no limit
	Preallocate  int64         // bytes to preallocate for small commits; 0: none
	MaxCopyBytes int64         // limit for the "corrupt" subdirectory; 0: 64 MiB
	CopyStep     int64         // record bytes that one commit copies; 0: 1 MiB in recovery, 256 KiB in cleaning
	ReserveBytes int64         // size of the reserve file; 0: no reserve

	// DeliverEarly is nil, or Recover calls it with sealed segments of
	// previous runs that are known to be on disk. The call precedes the
	// first write, so a full volume does not keep them from S3. They are
	// absent from Recovered.
	DeliverEarly func([]*Segment)

	// LastID returns the last id that was drawn for keys and runs. Nil: ids
	// are not recorded. No id may be drawn before Recover has returned.
	LastID func() uint64

	// Gather returns the unstaged lines of blocks without a frame. It may
	// omit blocks whose lines are all younger than before, and reports
	// whether it did. It is called by one goroutine at a time and without a
	// lock. The returned lines must not change until Release.
	Gather func(before time.Time) (stages []Stage, more bool)
}

// Stage is a range of lines of a block that has no frame yet.
type Stage struct {
	Partition   uint64
	Block       uint64
	Source      string
	Day         time.Time
	Offset      int64     // of Lines in the block
	First, Last time.Time // received
	Lines       [][]byte
	Release     func() // called when the journal no longer needs Lines

	pin pin // its records in the latest group
}

// Journal is the spool of a sink with a directory. It writes the records of all
// partitions to one sequence of files. It is safe for concurrent use.
//
// Only the journal's goroutine and the callers of Commit wait for the disk. The
// journal stages a block only when it is older than half the interval, so a
// block that is compressed sooner is written once. Queued entries and gathered
// lines stay in memory until a commit has fsynced them. When a commit fails,
// the same records go to a new file. A file whose fsync failed is never written
// again, because the kernel may have dropped its dirty pages.
type Journal struct {
	set  JournalSettings
	stop chan struct{}
	wake chan struct{}
	wg   sync.WaitGroup

	totalBytes      atomic.Int64  // size of all files
	recoveredLastID atomic.Uint64 // last id of previous runs
	room            atomic.Int64  // see Room

	reserveMissing atomic.Int64 // bytes that the reserve file lacks

	commitMu commitLock // held during a commit; taken before mu

	mu          sync.Mutex
	queue       []entry
	queuedBytes int64   // payload bytes in queue
	timerArmed  bool    // a tick will request a commit
	nextCommit  *commit // the one that new callers join
	err         error   // of the last commit; nil if it succeeded
	closed      bool    // no commit will follow
	timer       *time.Timer

	changes       uint64    // calls of MarkDirty and enqueue
	syncedChanges uint64    // changes that are on disk
	syncedBefore  time.Time // see Synced; unused while syncedChanges == changes

	run            string             // id of this run; it sorts after those of previous runs
	oldFiles       []*file            // files of previous runs, for Recover
	oldBytes       int64              // size of oldFiles
	recoverCalls   int                // calls of Recover
	deliveredEarly map[segmentID]bool // segments given to JournalSettings.DeliverEarly
	rewritten      []extent           // records that Recover wrote to files of this run

	corruptMu sync.Mutex // held while a copy of damaged bytes is written

	// Guarded by commitMu.
	files          *files // reading payloads needs no lock
	unsyncedStages []Stage
	cleaner        cleaner
	lastGroup      int       // callers of the last commit that had any
	lastGroupBegan time.Time // when that commit began
	noYieldBefore  time.Time // see yield
}

// NewJournal starts a journal in a directory that this process has locked.
func NewJournal(set JournalSettings) (*Journal, error) {
	old, err := listFiles(set.Dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		commitMu:       newCommitLock(),
		oldFiles:       old,
		deliveredEarly: map[segmentID]bool{},
		set:            set,
		stop:           make(chan struct{}),
		wake:           make(chan struct{}, 1),
		nextCommit:     &commit{done: make(chan struct{})},
		files:          newFiles(set.Dir, min(cmp.Or(set.FileSize, fileSize), fileSize), set.Preallocate, set.ReserveBytes),
	}
	for _, f := range old {
		j.oldBytes += f.size
	}
	j.cleaner = cleaner{files: j.files, limit: set.Limit, stepBytes: cmp.Or(set.CopyStep, cleanStep), started: len(old) == 0}
	j.timer = time.AfterFunc(time.Hour, j.tick)
	j.timer.Stop()
	j.files.lastID = j.lastID
	if j.files.adopted = len(old) == 0; !j.files.adopted {
		j.files.oldFiles, j.files.lastNumber = old, old[len(old)-1].number
		err = j.files.loadWatermarks(old)
	}
	if err == nil {
		err = j.files.reserve.adopt()
	}
	if err != nil {
		j.files.close()
		return nil, err
	}
	j.measureVolume()
	j.run = fmt.Sprintf("%016x-%s", j.files.lastNumber+1, set.RunID) // with the number of the run's first file
	j.wg.Go(j.loop)
	return j, nil
}

var _ Spool = (*Journal)(nil)

// lastID returns the greatest id known, of this run or a previous one.
func (j *Journal) lastID() uint64 {
	if j.set.LastID == nil {
		return j.recoveredLastID.Load()
	}
	return max(j.recoveredLastID.Load(), j.set.LastID())
}

// Append implements [Spool].
func (j *Journal) Append(seg *Segment, f Frame) error {
	record := &frameRecord{
		segmentID: seg.id(), index: seg.frames, frame: f,
		block: blockID{cmp.Or(f.Run, j.run), f.Partition, f.Block},
	}
	texts := 0
	if h := &seg.Header; record.index == 0 {
		record.header = h
		texts = len(h.Bucket) + len(h.Key) + len(h.Source) + len(h.ContentType) + len(h.ContentEncoding)
	}
	seg.add(&f)
	seg.frames++
	j.enqueue(entry{
		payloadBytes: int64(len(f.Payload)), segment: record.segmentID, framedBlock: &record.block, textBytes: int64(texts),
		encode: func(w *writer) error { w.frame(record); return nil },
		onSynced: func(at extent) {
			seg.disk = append(seg.disk, at.suffix(int64(len(record.frame.Payload))))
			addPin(j.files.segmentPins, record.segmentID, at.pin())
		},
		onGroupSynced: func() {
			unpinAll(j.files.blockPins, record.block)
			if f.Durable != nil {
				f.Durable()
			}
		},
	})
	return nil
}

// Seal implements [Spool]. It requests a commit, because the upload waits for
// the seal.
func (j *Journal) Seal(seg *Segment, sealed func()) {
	seg.seal()
	record := &sealRecord{segmentID: seg.id(), frames: seg.frames, events: seg.Events, size: seg.Size(), crc: seg.CRC32()}
	j.enqueue(entry{
		segment:       record.segmentID,
		encode:        func(w *writer) error { w.seal(record); return nil },
		onSynced:      func(at extent) { addPin(j.files.segmentPins, record.segmentID, at.pin()) },
		onGroupSynced: sealed,
	})
	j.requestCommit()
}

// Remove implements [Spool]. The "delivered" record waits for the next commit.
// If a crash comes first, the next run puts the same bytes under the same key
// again.
func (j *Journal) Remove(seg *Segment) { j.remove(seg, true) }

// RemoveReplaced removes a segment whose blocks were appended to other
// segments. Unlike that of Remove, its "delivered" record never overtakes
// queued frames, not even on a full volume.
func (j *Journal) RemoveReplaced(seg *Segment) { j.remove(seg, false) }

func (j *Journal) remove(seg *Segment, drains bool) {
	id := seg.id()
	j.enqueue(entry{
		drainsSpool:   drains,
		encode:        func(w *writer) error { w.delivered(deliveredRecord{id}); return nil },
		onGroupSynced: func() { j.files.noteDelivered(id) },
	})
}

// ReleaseTorn unpins the files of a recovered block without a whole line. A
// crash interrupted the write of its first line, so Track has not acknowledged
// it.
func (j *Journal) ReleaseTorn(l *RecoveredBlock) {
	j.releaseBlock(blockID{l.Run, l.Partition, l.Block})
}

func (j *Journal) releaseBlock(id blockID) {
	j.enqueue(entry{
		drainsSpool:   true,
		encode:        func(*writer) error { return nil },
		onGroupSynced: func() { unpinAll(j.files.blockPins, id) },
	})
}

// MarkDirty notes that Gather has new lines.
func (j *Journal) MarkDirty() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.countChangeLocked()
	j.armTimerLocked()
}

// countChangeLocked counts a change that is not on disk yet.
func (j *Journal) countChangeLocked() {
	if j.syncedChanges == j.changes {
		j.syncedBefore = time.Now() // so that Synced never decreases
	}
	j.changes++
}

// Commit waits until everything that was appended or visible to Gather before
// the call is on disk. Concurrent callers share one write and one fsync. After
// an error the data may or may not be on disk.
//
// A caller whose ctx cannot be cancelled commits on its own goroutine when no
// commit is running. Waking the commit goroutine for each call costs more than
// the write. During and after Close, only Commit may be called.
func (j *Journal) Commit(ctx context.Context) error {
	j.mu.Lock()
	if j.closed {
		defer j.mu.Unlock()
		return j.err
	}
	c := j.nextCommit
	c.waiters++
	j.mu.Unlock()
	if ctx.Done() == nil && j.commitMu.TryLock() {
		if !c.isDone() {
			j.commit()
		}
		j.commitMu.Unlock()
	} else {
		j.requestCommit()
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Bytes returns the size of all files.
func (j *Journal) Bytes() int64 { return j.totalBytes.Load() }

// PreviousBytes returns the size of the files of previous runs.
func (j *Journal) PreviousBytes() int64 { return j.oldBytes }

// Room returns the bytes that the volume had left after the last commit, apart
// from the reserve. It is [math.MaxInt64] if the system does not tell.
func (j *Journal) Room() int64 { return j.room.Load() }

// measureVolume updates reserveMissing and room. The caller holds commitMu.
func (j *Journal) measureVolume() {
	j.reserveMissing.Store(j.files.reserve.missing())
	j.RefreshRoom()
}

// RefreshRoom asks the system for the free bytes. It updates and returns Room.
func (j *Journal) RefreshRoom() int64 {
	free := j.files.reserve.freeBytes()
	room := free - j.reserveMissing.Load()
	j.room.Store(room)
	return room
}

// Synced returns a time that never decreases. Everything added before it is on
// disk. While no change waits for a commit, it is the current time.
func (j *Journal) Synced() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.syncedChanges == j.changes {
		return time.Now()
	}
	return j.syncedBefore
}

// Err returns the error of the last commit, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Close makes a final commit and closes the files. Nothing may be appended
// during or after Close.
func (j *Journal) Close() error {
	close(j.stop)
	j.wg.Wait()
	j.timer.Stop()
	j.files.close()
	return j.err
}

func (j *Journal) enqueue(e entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = append(j.queue, e)
	j.queuedBytes += e.payloadBytes
	j.countChangeLocked()
	if j.queuedBytes >= maxQueued {
		j.requestCommit()
	}
	j.armTimerLocked()
}

// armTimerLocked starts the timer that requests a commit after half the
// interval.
func (j *Journal) armTimerLocked() {
	if !j.timerArmed {
		j.timerArmed = true
		j.timer.Reset(j.set.Interval / 2)
	}
}

func (j *Journal) tick() {
	j.mu.Lock()
	j.timerArmed = false
	j.mu.Unlock()
	j.requestCommit()
}

// requestCommit wakes the commit goroutine.
func (j *Journal) requestCommit() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}
