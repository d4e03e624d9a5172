package spool

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
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

	// maxStage bounds a stage record, and with it what recovery must read at
	// once.
	maxStage = 1 << 20
)

// JournalSettings are fixed for a journal's life.
type JournalSettings struct {
	Dir      vfs.Dir
	RunID    string
	Interval time.Duration // between commits that nobody waits for
	FileSize int64         // when a file is full, at most 64 MiB; 0: that
	Ahead    int64         // bytes that are reserved for commits that somebody waits for
	Kept     int64         // bytes of copies of what is damaged; 0: 64 MiB
	Rewrite  int64         // bytes that recovery writes again at once; 0: 1 MiB

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

	bytes atomic.Int64 // of all files

	turn sync.Mutex // of who commits; it comes before mu

	mu     sync.Mutex
	queue  []entry
	queued int64   // bytes of frames in queue
	armed  bool    // the timer runs
	next   *commit // that has not begun
	err    error   // of the last commit, if it failed
	synced time.Time
	timer  *time.Timer

	run   string   // sorts behind those of earlier runs
	old   []*file  // of earlier runs, for Recover
	tries int      // calls of Recover
	moved []extent // records that Recover has written again

	keeping sync.Mutex // of who writes copies of what is damaged

	// Of who has the turn.
	files   *files // but for reading
	held    []Stage
	crowd   int       // how many waited for the last commit for which anybody did
	began   time.Time // when it began
	yieldAt time.Time // not before
}

// commit is one group, for which several callers may wait.
type commit struct {
	waiting int
	done    chan struct{}
	err     error
}

// entry is a record to write, and what follows when it is on disk.
type entry struct {
	write func(*writer) error
	wrote func(f *file, end int64) // it is on disk, and ends there
	then  func()                   // all of its group is
	bytes int64
	end   int64 // where write put it
}

// NewJournal starts a journal in a directory that this process has locked.
func NewJournal(set JournalSettings) (*Journal, error) {
	old, err := listFiles(set.Dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		old:   old,
		set:   set,
		stop:  make(chan struct{}),
		wake:  make(chan struct{}, 1),
		next:  &commit{done: make(chan struct{})},
		files: newFiles(set.Dir, min(cmp.Or(set.FileSize, fileSize), fileSize), set.Ahead),
	}
	j.timer = time.AfterFunc(time.Hour, j.tick)
	j.timer.Stop()
	if len(old) > 0 {
		j.files.old, j.files.last = old, old[len(old)-1].number
		err = j.files.suspect(old)
	}
	if err != nil {
		j.files.close()
		return nil, err
	}
	j.run = fmt.Sprintf("%016x-%s", j.files.last+1, set.RunID) // the number of its first file
	j.wg.Go(j.loop)
	return j, nil
}

var _ Spool = (*Journal)(nil)

// Append implements [Spool].
func (j *Journal) Append(seg *Segment, f Frame) error {
	record := &frameRecord{
		segmentID: seg.id(), index: seg.frames, frame: f,
		block: blockID{cmp.Or(f.Run, j.run), f.Partition, f.Block},
	}
	if record.index == 0 {
		record.header = &seg.Header
	}
	seg.add(&f)
	seg.frames++
	j.enqueue(entry{
		bytes: int64(len(f.Payload)),
		write: func(w *writer) error { w.frame(record); return nil },
		wrote: func(to *file, end int64) {
			size := int64(len(record.frame.Payload))
			seg.disk = append(seg.disk, extent{to, end - size, size})
			need(j.files.segments, record.segmentID, to)
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
		write: func(w *writer) error { w.seal(record); return nil },
		wrote: func(to *file, _ int64) { need(j.files.segments, record.segmentID, to) },
		then:  sealed,
	})
	j.nudge()
}

// Remove implements [Spool]. The record has time until the next commit: should
// a crash come first, the same bytes go to the same key again.
func (j *Journal) Remove(seg *Segment) {
	id := seg.id()
	j.enqueue(entry{
		write: func(w *writer) error { w.delivered(deliveredRecord{id}); return nil },
		then:  func() { done(j.files.segments, id) },
	})
}

// Dirty says that Gather will find something.
func (j *Journal) Dirty() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.armLocked()
}

// Commit waits until everything that was appended, or that Gather could see,
// before the call is on disk. One write and one sync serve all who wait. After
// an error it is not known whether it is. Who cannot be called off makes the
// commit, if nobody else does: to wake another goroutine for each is dear.
func (j *Journal) Commit(ctx context.Context) error {
	j.mu.Lock()
	c := j.next
	c.waiting++
	j.mu.Unlock()
	if ctx.Done() == nil && j.turn.TryLock() {
		j.commit()
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

// Synced returns a time: what was added before that is on disk.
func (j *Journal) Synced() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.synced
}

// Err returns why the last commit failed, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Close makes a last commit and lets go of the files. Nobody may use the
// journal any more.
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

func (j *Journal) loop() {
	for {
		select {
		case <-j.wake:
			j.turn.Lock()
			j.commit()
			j.turn.Unlock()
		case <-j.stop:
			j.Commit(context.Background())
			return
		}
	}
}

// yield lets those whom the last commit has woken join this one. With 64 callers a
// sync serves twice as many then. But whatever else the process has to do comes
// first as well: if they join more slowly than they do without, it is left for a
// while.
func (j *Journal) yield() {
	began := time.Now()
	if j.crowd < 2 || began.Before(j.yieldAt) {
		return
	}
	before := j.waiting()
	runtime.Gosched()
	now := time.Now()
	joined, took, rest := j.waiting()-before, now.Sub(began), began.Sub(j.began)
	if time.Duration(joined)*rest < time.Duration(before)*took {
		j.yieldAt = now.Add(4 * took)
	}
}

// waiting returns how many wait for the next commit.
func (j *Journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next.waiting
}

// commit brings everything that there is to the disk; of lines without a frame
// only those that are due, if nobody waits. The blocks are asked before the
// queue: a block that gets its frame in between is in both, which is harmless,
// and not in neither.
func (j *Journal) commit() {
	j.yield()
	j.mu.Lock()
	c := j.next
	j.next = &commit{done: make(chan struct{})}
	j.mu.Unlock()

	all := time.Now()
	due := all
	if c.waiting > 0 {
		j.crowd, j.began = c.waiting, all
	} else {
		due = due.Add(-j.set.Interval / 2)
	}
	stages, more := j.set.Gather(due)
	stages = append(j.held, stages...)
	j.mu.Lock()
	if more {
		all = due
		j.armLocked()
	}
	queue := j.queue
	j.queue, j.queued = nil, 0
	j.mu.Unlock()

	err := j.write(stages, queue)
	j.mu.Lock()
	j.err = err
	if err != nil {
		j.queue = append(queue, j.queue...)
		j.armLocked()
	} else {
		j.synced = all
	}
	j.mu.Unlock()
	j.held = nil
	if err != nil {
		j.held = stages
	} else {
		j.settle(stages, queue)
	}
	j.reap() // also when the disk is full
	j.bytes.Store(j.files.size())
	c.err = err
	close(c.done)
}

// write brings one group to the disk, to another file if the first try fails.
func (j *Journal) write(stages []Stage, queue []entry) error {
	if len(stages)+len(queue) == 0 {
		return nil
	}
	err := j.files.write(j.group(stages, queue))
	if err != nil {
		err = j.files.write(j.group(stages, queue))
	}
	if err != nil {
		return fmt.Errorf("commit to the journal: %w", err)
	}
	return nil
}

// group returns what writes a group into a file: stages first, then frames and
// seals in the order in which they were made, so that a seal is behind its
// frames wherever the file is cut.
func (j *Journal) group(stages []Stage, queue []entry) func(*file, *writer) error {
	return func(f *file, w *writer) error {
		w.group(f.durable)
		for i := range stages {
			if err := j.stage(&stages[i], f, w); err != nil {
				return err
			}
		}
		for i := range queue {
			if err := queue[i].write(w); err != nil {
				return err
			}
			queue[i].end = f.size + int64(len(w.buf))
			if err := f.spill(w, maxQueued); err != nil {
				return err
			}
		}
		return f.spill(w, 0)
	}
}

// stage writes lines as records of a bounded length.
func (j *Journal) stage(s *Stage, f *file, w *writer) error {
	record := stageRecord{
		blockID: blockID{j.run, s.Partition, s.Block},
		source:  s.Source, day: s.Day, offset: s.Offset, first: s.First, last: s.Last,
	}
	var pieces [][]byte
	size := 0
	write := func() error {
		w.stage(&record, pieces)
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

// Forget lets go of a block that holds no whole line: a crash came while its
// first one was written, so nobody was told that it was taken.
func (j *Journal) Forget(l *Leftover) {
	j.forget(blockID{l.Run, l.Partition, l.Block})
}

func (j *Journal) forget(id blockID) {
	j.enqueue(entry{
		write: func(*writer) error { return nil },
		then:  func() { done(j.files.blocks, id) },
	})
}

// settle tells everybody that a group is on disk.
func (j *Journal) settle(stages []Stage, queue []entry) {
	current := j.files.current
	for i := range stages {
		s := &stages[i]
		need(j.files.blocks, blockID{j.run, s.Partition, s.Block}, current)
		s.Release()
	}
	for i := range queue {
		if e := &queue[i]; e.wrote != nil {
			e.wrote(current, e.end)
		}
	}
	for i := range queue {
		if e := &queue[i]; e.then != nil {
			e.then()
		}
	}
	j.files.roll()
}

// reap removes a file that is not needed. Who commits waits for it, so the next
// one goes in a commit of its own.
func (j *Journal) reap() {
	switch more, err := j.files.reap(1); {
	case more:
		j.nudge()
	case err != nil: // perhaps nobody has anything to commit: room must come all the same
		j.mu.Lock()
		j.armLocked()
		j.mu.Unlock()
	}
}
