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
	// fileSize is when a journal file is full, unless the settings say less: a
	// commit that passes it is the last of its file.
	fileSize = 64 << 20

	// maxQueued is how many bytes of frames wait for the next tick.
	maxQueued = 4 << 20
)

// JournalSettings are fixed for a journal's life.
type JournalSettings struct {
	Dir      vfs.Dir
	RunID    string
	Interval time.Duration // between commits that nobody waits for
	FileSize int64         // when a file is full, at most 64 MiB; 0: that
	Limit    int64         // bytes that all files should stay below; 0: none
	Ahead    int64         // bytes that are reserved for commits that somebody waits for
	Kept     int64         // bytes of copies of what is damaged; 0: 64 MiB
	Rewrite  int64         // bytes of records that recovery writes again at once; 0: 1 MiB; and cleaning; 0: 256 KiB
	Reserve  int64         // bytes of the volume that are kept for draining the spool; 0: none

	// Early is nil, or called by Recover with sealed segments of previous runs that
	// are certain to be on disk, before Recover writes anything: a full volume must
	// not keep them from S3. What it was given is not in Recovered.
	Early func([]*Segment)

	// LastID returns the last id that was drawn for keys and runs. Nil means that
	// none is to be remembered. None may be drawn before Recover has returned.
	LastID func() uint64

	// Gather returns what a crash would lose otherwise: the lines that were
	// not in a stage yet of every block without a frame. It may leave out
	// blocks with none from before a time; then it says that there is more. It
	// is called by one goroutine at a time and without a lock; what it returns
	// stays as it is until Release.
	Gather func(before time.Time) (stages []Stage, more bool)
}

// Stage is lines of a block that has no frame yet.
type Stage struct {
	Partition   uint64
	Block       uint64
	Source      string
	Day         time.Time
	Offset      int64     // of the lines in the block
	First, Last time.Time // received
	Lines       [][]byte
	Release     func() // the lines are not needed any more

	written share // the records of the lines, in the group that was written last
}

// Journal is the spool of a sink with a directory: the records of all
// partitions in one sequence of files. It is safe for concurrent use.
//
// Nothing waits for the disk but the journal's own goroutine, and whoever calls
// Commit. A block that gets its frame soon enough is never staged: only what
// has waited for half the interval is, twice in each. What is appended or gathered stays in memory until a commit has
// brought it to the disk, so when a commit fails the same records go to another
// file; a file whose sync has failed is never written to again, because the
// kernel forgets what it could not write.
type Journal struct {
	set  JournalSettings
	stop chan struct{}
	wake chan struct{}
	wg   sync.WaitGroup

	bytes atomic.Int64  // of all files
	found atomic.Uint64 // last id of earlier runs
	room  atomic.Int64  // bytes that the volume takes besides the reserve

	missing atomic.Int64 // bytes of the reserve that are not held

	turn sync.Mutex // of who commits; it comes before mu

	mu     sync.Mutex
	queue  []entry
	queued int64   // bytes of frames in queue
	armed  bool    // the timer runs
	next   *commit // that has not begun
	err    error   // of the last commit, if it failed
	closed bool    // there will be no other
	timer  *time.Timer

	changes   uint64    // calls of Dirty and enqueue so far
	committed uint64    // changes that are on disk
	synced    time.Time // see Synced; not used while committed == changes

	run      string             // sorts behind those of earlier runs
	old      []*file            // of earlier runs, for Recover
	oldBytes int64              // of them
	tries    int                // calls of Recover
	early    map[segmentID]bool // given to JournalSettings.Early
	moved    []extent           // records that Recover has written again

	keeping sync.Mutex // of who writes copies of what is damaged

	// Of who has the turn.
	files   *files // but for reading
	held    []Stage
	cleaner cleaner
	crowd   int       // how many waited for the last commit for which anybody did
	began   time.Time // when it began
	yieldAt time.Time // not before
}

// NewJournal starts a journal in a directory that this process has locked.
func NewJournal(set JournalSettings) (*Journal, error) {
	old, err := listFiles(set.Dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		old:   old,
		early: map[segmentID]bool{},
		set:   set,
		stop:  make(chan struct{}),
		wake:  make(chan struct{}, 1),
		next:  &commit{done: make(chan struct{})},
		files: newFiles(set.Dir, min(cmp.Or(set.FileSize, fileSize), fileSize), set.Ahead, set.Reserve),
	}
	for _, f := range old {
		j.oldBytes += f.size
	}
	j.cleaner = cleaner{files: j.files, limit: set.Limit, most: cmp.Or(set.Rewrite, cleanStep), started: len(old) == 0}
	j.timer = time.AfterFunc(time.Hour, j.tick)
	j.timer.Stop()
	j.files.lastID = j.lastID
	if j.files.adopted = len(old) == 0; !j.files.adopted {
		j.files.old, j.files.last = old, old[len(old)-1].number
		err = j.files.suspect(old)
	}
	if err == nil {
		err = j.files.reserve.adopt()
	}
	if err != nil {
		j.files.close()
		return nil, err
	}
	j.lookAtVolume()
	j.run = fmt.Sprintf("%016x-%s", j.files.last+1, set.RunID) // the number of its first file
	j.wg.Go(j.loop)
	return j, nil
}

var _ Spool = (*Journal)(nil)

// lastID returns the last id that is known, of any run.
func (j *Journal) lastID() uint64 {
	if j.set.LastID == nil {
		return j.found.Load()
	}
	return max(j.found.Load(), j.set.LastID())
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
		bytes: int64(len(f.Payload)), segment: record.segmentID, framed: &record.block, texts: int64(texts),
		write: func(w *writer) error { w.frame(record); return nil },
		wrote: func(at extent) {
			seg.disk = append(seg.disk, at.last(int64(len(record.frame.Payload))))
			need(j.files.segments, record.segmentID, at.share())
		},
		then: func() {
			done(j.files.blocks, record.block)
			if f.Durable != nil {
				f.Durable()
			}
		},
	})
	return nil
}

// Seal implements [Spool]. It asks for a commit, because the object waits.
func (j *Journal) Seal(seg *Segment, sealed func()) {
	seg.seal()
	record := &sealRecord{segmentID: seg.id(), frames: seg.frames, events: seg.Events, size: seg.Size(), crc: seg.CRC32()}
	j.enqueue(entry{
		segment: record.segmentID,
		write:   func(w *writer) error { w.seal(record); return nil },
		wrote:   func(at extent) { need(j.files.segments, record.segmentID, at.share()) },
		then:    sealed,
	})
	j.nudge()
}

// Remove implements [Spool]. The record has time until the next commit: should
// a crash come first, the same bytes go to the same key again.
func (j *Journal) Remove(seg *Segment) { j.remove(seg, true) }

// Replace is Remove for a segment whose blocks were appended to others: its record
// stays behind their frames, also on a full volume.
func (j *Journal) Replace(seg *Segment) { j.remove(seg, false) }

func (j *Journal) remove(seg *Segment, drains bool) {
	id := seg.id()
	j.enqueue(entry{
		drains: drains,
		write:  func(w *writer) error { w.delivered(deliveredRecord{id}); return nil },
		then:   func() { j.files.deliver(id) },
	})
}

// Forget lets go of a block that holds no whole line: a crash came while its
// first one was written, so nobody was told that it was taken.
func (j *Journal) Forget(l *Leftover) {
	j.forget(blockID{l.Run, l.Partition, l.Block})
}

func (j *Journal) forget(id blockID) {
	j.enqueue(entry{
		drains: true,
		write:  func(*writer) error { return nil },
		then:   func() { done(j.files.blocks, id) },
	})
}

// Dirty says that Gather will find something.
func (j *Journal) Dirty() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changedLocked()
	j.armLocked()
}

// changedLocked counts a change that is not on disk yet.
func (j *Journal) changedLocked() {
	if j.committed == j.changes {
		j.synced = time.Now() // so that Synced never goes back
	}
	j.changes++
}

// Commit waits until everything that was appended, or that Gather could see,
// before the call is on disk. One write and one sync serve all who wait. After
// an error it is not known whether it is. Who cannot be called off makes the
// commit, if nobody else does: to wake another goroutine for each is dear. While
// the journal is closed, and after that, only this may be called.
func (j *Journal) Commit(ctx context.Context) error {
	j.mu.Lock()
	if j.closed {
		defer j.mu.Unlock()
		return j.err
	}
	c := j.next
	c.waiting++
	j.mu.Unlock()
	if ctx.Done() == nil && j.turn.TryLock() {
		if !c.ended() {
			j.commit()
		}
		j.turn.Unlock()
	} else {
		j.nudge()
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Bytes returns how much the files hold.
func (j *Journal) Bytes() int64 { return j.bytes.Load() }

// OldBytes returns the size of the files that previous runs have left.
func (j *Journal) OldBytes() int64 { return j.oldBytes }

// Room returns how many bytes more the journal could write after the last commit
// before its reserve was all that the volume had, as far as the system tells.
func (j *Journal) Room() int64 { return j.room.Load() }

// lookAtVolume notes how much room there is. The caller has the turn.
func (j *Journal) lookAtVolume() {
	j.missing.Store(j.files.reserve.missing())
	j.AskRoom()
}

// AskRoom asks the volume, and returns what Room does from now on.
func (j *Journal) AskRoom() int64 {
	free := j.files.reserve.free()
	room := free - j.missing.Load()
	j.room.Store(room)
	return room
}

// Synced returns a time that never goes back: everything added before it is on
// disk. It is the current time while nothing waits for a commit.
func (j *Journal) Synced() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.committed == j.changes {
		return time.Now()
	}
	return j.synced
}

// Err returns why the last commit failed, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Close makes a last commit and lets go of the files. Nothing may be appended any
// more.
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
	j.queued += e.bytes
	j.changedLocked()
	if j.queued >= maxQueued {
		j.nudge()
	}
	j.armLocked()
}

// armLocked sees to it that a commit comes within half the interval.
func (j *Journal) armLocked() {
	if !j.armed {
		j.armed = true
		j.timer.Reset(j.set.Interval / 2)
	}
}

func (j *Journal) tick() {
	j.mu.Lock()
	j.armed = false
	j.mu.Unlock()
	j.nudge()
}

// nudge asks for a commit now.
func (j *Journal) nudge() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}
