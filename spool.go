package s3sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/uuid7"
	"github.com/s3sink/s3sink/internal/vfs"
)

// Durability is what an event survives once Track has returned nil, in a sink
// with a SpoolDir.
type Durability int

// Levels of durability.
const (
	// SyncInterval loses at most the events of the last CommitInterval when
	// the process is killed or the power fails.
	SyncInterval Durability = iota

	// SyncEach loses none: Track waits for the disk. One write and one sync
	// serve all callers of all sources who wait at the same time.
	SyncEach
)

// openSpool opens the directory of the Config for this sink, and waits until ctx
// ends for another sink that has it.
func openSpool(ctx context.Context, cfg *Config) (vfs.Dir, error) {
	var found vfs.Found
	dir, err := vfs.Open(cfg.SpoolDir, vfs.Options{
		AllowNetwork: cfg.AllowNetworkSpool,
		JournalFile:  spool.IsFileName,
		Found:        func(f vfs.Found) { found = f },
	})
	if err != nil {
		return nil, &SpoolError{Err: err}
	}
	where := slog.String("directory", found.Path)
	if found.Changed() {
		attrs := []any{where, slog.Int("files_changed", found.Files)}
		if found.Mode != 0 {
			attrs = append(attrs, slog.String("directory_mode_before", found.Mode.String()))
		}
		cfg.Logger.Warn("s3sink: other users had access to the spool directory or its files: "+
			"the modes are set to 0700 and 0600 again; if kubelet changes them for fsGroup, "+
			"set fsGroupChangePolicy: OnRootMismatch (docs/kubernetes.md)", attrs...)
	}
	if err := lockSpool(ctx, cfg.Logger, dir, where); err != nil {
		dir.Close()
		return nil, err
	}
	cfg.Logger.Info("s3sink: the spool directory is open and locked", where)
	if fs := dir.FileSystem(); fs.Volatile {
		cfg.Logger.Warn("s3sink: what is synced in the spool directory may not survive a power failure",
			slog.String("file_system", fs.Name))
	}
	return dir, nil
}

// lockWarning is how long New waits for a locked directory before it says so.
const lockWarning = time.Second

// lockSpool locks the directory, and waits for another sink until ctx ends.
func lockSpool(ctx context.Context, logger *slog.Logger, dir vfs.Dir, where slog.Attr) error {
	begin := time.Now()
	soon, cancel := context.WithTimeout(ctx, lockWarning)
	err := dir.Lock(soon)
	cancel()
	var locked *vfs.LockedError
	if errors.As(err, &locked) && ctx.Err() == nil {
		attrs := []any{where, slog.String("holder", locked.Holder.String())}
		if h := locked.Holder; h.PID != 0 {
			attrs = append(attrs, slog.Int("pid", h.PID), slog.String("host", h.Host), slog.Time("since", h.Since))
		}
		logger.Warn("s3sink: another sink uses the spool directory: New waits until that sink is closed or its process ends", attrs...)
		err = dir.Lock(ctx)
	}
	switch {
	case errors.As(err, &locked):
		return &lockedError{LockedError: locked, waited: time.Since(begin)}
	case err != nil:
		return &SpoolError{Err: err}
	}
	return nil
}

const (
	// filesInSpool is how many full journal files fill the spool, at least. The
	// last file stays when all in it is delivered: were it the only one, a spool
	// that was full once would stay so.
	filesInSpool = 8

	minFile = 64 << 10 // of a full journal file

	// The reserve is the limit divided by reserveShare: half of a journal file. The
	// frame of a large block fits into it, and the seals and "delivered" records
	// for a file of the smallest objects take a quarter of it.
	reserveShare = 2 * filesInSpool
	minReserve   = 64 << 10
	maxReserve   = 8 << 20
)

// spoolLimit returns how large the spool can become: MaxSpoolBytes, or what its
// volume has for it, if that is less.
func (s *Sink) spoolLimit(dir vfs.Dir) (int64, error) {
	free, err := dir.Free()
	if errors.Is(err, errors.ErrUnsupported) {
		return s.cfg.MaxSpoolBytes, nil
	}
	if err != nil {
		return 0, err
	}
	entries, err := dir.List()
	if err != nil {
		return 0, err
	}
	volume := free
	for _, e := range entries {
		volume += e.Size
	}
	if volume < s.cfg.MaxSpoolBytes {
		s.cfg.Logger.Warn("s3sink: the volume of SpoolDir has less room than MaxSpoolBytes; Track returns ErrBufferFull when the volume is nearly full; "+
			"lower MaxSpoolBytes or enlarge the volume",
			slog.Int64("max_spool_bytes", s.cfg.MaxSpoolBytes), slog.Int64("free_bytes", free), slog.Int64("spool_bytes", volume-free))
	}
	return min(s.cfg.MaxSpoolBytes, volume), nil
}

// startSpool gives the batcher a journal in dir, and begins to take over what
// earlier runs have left there.
func (s *Sink) startSpool(dir vfs.Dir) error {
	b := s.batcher
	limit, err := s.spoolLimit(dir)
	if err != nil {
		return &SpoolError{Err: err}
	}
	set := spool.JournalSettings{
		Dir: dir, RunID: uuid7.New(), LastID: s.ids.Last, Interval: s.cfg.CommitInterval, Gather: b.gather,
		FileSize: max(minFile, limit/filesInSpool), Limit: limit, MaxCopyBytes: limit / 10,
		DeliverEarly: s.recoverEarly, ReserveBytes: min(maxReserve, max(minReserve, limit/reserveShare)),
	}
	if s.cfg.Durability == SyncEach {
		set.Preallocate = writeAhead
	}
	j, err := spool.NewJournal(set)
	if err != nil {
		return &SpoolError{Err: err}
	}
	s.spoolDir, s.journal = dir, j
	b.spool, b.journal, b.recovering = j, j, true
	ctx, cancel := context.WithCancel(context.Background())
	s.stopRecovery = cancel
	s.recovery.Go(func() { s.recover(ctx) })
	return nil
}

// writeAhead is how much the journal reserves where callers wait for the disk:
// with less it is too often, with more the one who waits for the zeros notices.
const writeAhead = 512 << 10

// recoverAgain is the wait before a spool that cannot be read is read again.
const recoverAgain = 10 * time.Second

// recover takes over what earlier runs have left. Events of this run wait in
// the spool meanwhile, so that they come behind.
func (s *Sink) recover(ctx context.Context) {
	found, err := s.journal.Recover(ctx)
	for err != nil {
		if !s.cannotRead(ctx, err) {
			return
		}
		found, err = s.journal.Recover(ctx)
	}
	s.unread.Store(nil)
	s.ids.Raise(found.LastID) // before a segment of this run gets its key, and the run its id
	s.tell(found)
	found.Sealed = slices.DeleteFunc(found.Sealed, s.foreign)
	found.Unfinished = slices.DeleteFunc(found.Unfinished, s.foreignTail)
	s.widen(found)
	s.addSealed(found.Sealed)
	for _, t := range found.Unfinished {
		if ctx.Err() != nil {
			return
		}
		err := s.finish(ctx, t)
		if err != nil && ctx.Err() != nil {
			return // what follows would come before the rest
		}
		if err != nil {
			gone := &SpoolError{Err: fmt.Errorf("a part of what earlier runs have left is gone: %w", err)}
			s.unread.Store(gone)
			s.cfg.Logger.Error("s3sink: a part of the spool is gone; what is left of that source's day waits for the next run, "+
				"behind the events of this one; look after the disk", slog.String("source", t.Source),
				slog.Any("error", gone), slog.String("file", gone.File()))
		}
	}
	s.batcher.endRecovery()
}

// recoverEarly delivers sealed segments of previous runs before recovery has ended.
func (s *Sink) recoverEarly(sealed []*spool.Segment) {
	sealed = slices.DeleteFunc(sealed, s.foreign)
	s.widen(&spool.Recovered{Sealed: sealed})
	s.addSealed(sealed)
}

// addSealed has segments of previous runs counted and sent.
func (s *Sink) addSealed(sealed []*spool.Segment) {
	for _, seg := range sealed {
		s.batcher.addRecovered(seg, s.sources.get(s, seg.Source))
		s.addOld(seg)
	}
}

// addOld has a segment of an earlier run sent. A bucket may refuse those of
// another key format and no others.
func (s *Sink) addOld(seg *spool.Segment) { s.uploader.AddOld(seg, s.isEarlier(seg)) }

// cannotRead says that the spool cannot be read, and waits before it is read
// again. It reports false if ctx has ended.
func (s *Sink) cannotRead(ctx context.Context, err error) bool {
	if ctx.Err() == nil {
		unread := &SpoolError{Err: fmt.Errorf("read what earlier runs have left: %w", err)}
		s.unread.Store(unread)
		s.cfg.Logger.Error("s3sink: the spool cannot be read; nothing is uploaded until it can", slog.Any("error", unread), slog.String("file", unread.File()))
	}
	return pause(ctx, recoverAgain)
}

// pause waits, and reports false if ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// tell says what is not as it was left.
func (s *Sink) tell(found *spool.Recovered) {
	s.spoolDamaged.Store(found.DamagedBytes)
	s.spoolTorn.Store(found.TornBytes)
	if lost := found.LostEvents(); len(found.DamagedFiles) > 0 || lost > 0 {
		said := []any{slog.Any("files", found.DamagedFiles), slog.Int64("bytes", found.DamagedBytes),
			slog.Int64("events_lost_in_objects", lost), slog.Int64("bytes_copied", found.CopiedBytes)}
		if found.CopyErr != nil {
			said = append(said, slog.Any("not_all_copied", found.CopyErr))
		}
		s.cfg.Logger.Error("s3sink: the spool is damaged: the disk does not hold what had been brought to it; what is whole is delivered, "+
			"and copies of the rest are in its subdirectory corrupt (docs/spool-format.md); look after the disk", said...)
	}
	if len(found.UnknownVersion) > 0 {
		s.cfg.Logger.Warn("s3sink: files in the spool are of another version; they are left as they are", slog.Any("files", found.UnknownVersion))
	}
	s.batcher.quarantine(found.Quarantined)
}

// foreign reports whether a segment is for another bucket or prefix than this
// sink's. It stays in the spool, for a sink that has them.
func (s *Sink) foreign(seg *spool.Segment) bool {
	if seg.Bucket == s.bucket && strings.HasPrefix(seg.Key, s.prefix) {
		return false
	}
	if s.foreignEvents.Add(seg.Events) == seg.Events {
		s.cfg.Logger.Warn("s3sink: the spool holds objects for another bucket or prefix; they stay there until a sink has it",
			slog.String("bucket", seg.Bucket), slog.String("key", seg.Key))
	}
	return true
}

// foreignTail reports whether something of a tail is for another bucket.
func (s *Sink) foreignTail(t spool.UnfinishedPartition) bool {
	found := t.Segment != nil && s.foreign(t.Segment)
	for _, b := range t.Damaged { // all are counted
		found = b.Segment.Key != "" && s.foreign(b.Segment) || found
	}
	return found
}

// finish completes what is left of a partition of an earlier run. After an
// error what came before it is complete, and the rest stays in the spool.
func (s *Sink) finish(ctx context.Context, t spool.UnfinishedPartition) (failed error) {
	e, err := deflate.NewEncoder(s.cfg.CompressionLevel)
	if err != nil {
		return err
	}
	b, src := s.batcher, s.sources.get(s, t.Source)
	var seg *spool.Segment
	queued := int64(0)
	take := func() { // t.Segment, behind what comes before it
		if seg != nil {
			b.sealRecovered(seg, src, s.addOld)
		}
		seg, t.Segment = t.Segment, nil
	}
	for i := range t.Blocks {
		if i == t.BlocksBeforeSegment && t.Segment != nil {
			take()
		}
		f, err := s.waitForFrame(ctx, e, &t.Blocks[i])
		if err != nil {
			failed = err
			break
		}
		if f.Events == 0 {
			s.journal.ReleaseTorn(&t.Blocks[i])
			continue
		}
		if seg != nil && !seg.Fits(&f, b.lim.object) {
			b.sealRecovered(seg, src, s.addOld)
			seg = nil
		}
		if seg == nil {
			seg = b.openRecovered(&partition{source: src, day: t.Day})
		}
		if failed = b.spool.Append(seg, f); failed != nil {
			break
		}
		if queued += int64(len(f.Payload)); len(t.Damaged) > 0 && queued > s.cfg.MaxMemory/16 { // whole objects, not only blocks
			queued = 0
			if failed = s.waitForCommit(ctx); failed != nil {
				break
			}
		}
	}
	if failed == nil && t.Segment != nil {
		take()
	}
	if seg != nil && seg.Events > 0 {
		b.sealRecovered(seg, src, s.addOld)
	}
	if failed == nil {
		s.replaced(t.Damaged)
	}
	return failed
}

// waitForFrame returns the frame of what is left of a block, however long the disk
// cannot read it: to skip it would break the order. With [io.EOF] it is gone.
func (s *Sink) waitForFrame(ctx context.Context, e *deflate.Encoder, left *spool.RecoveredBlock) (spool.Frame, error) {
	before := s.unread.Load()
	f, err := s.frameOf(e, left)
	for err != nil && !errors.Is(err, io.EOF) && s.cannotRead(ctx, err) {
		f, err = s.frameOf(e, left)
	}
	if err == nil {
		s.unread.Store(before)
	}
	return f, err
}

// waitForCommit waits until what was appended is on disk. The journal goes on trying
// by itself, and says in [Sink.Err] what is wrong.
func (s *Sink) waitForCommit(ctx context.Context) error {
	for s.journal.Commit(ctx) != nil {
		if !pause(ctx, time.Second) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// replaced gives up segments whose blocks are in others now.
func (s *Sink) replaced(all []spool.DamagedSegment) {
	for _, broken := range all {
		s.journal.RemoveReplaced(broken.Segment)
		s.batcher.quarantine(broken.LostEvents)
		if broken.LostEvents > 0 && broken.Segment.Key != "" {
			object := objectInfo(broken.Segment)
			object.Events = broken.LostEvents
			s.tellCorrupt(object, &UploadError{Key: object.Key, Err: fmt.Errorf("%w: %w", ErrDamaged, spool.ErrDamaged), class: s3put.Damaged})
		}
	}
}

// frameOf compresses a block that an earlier run had only staged, or returns
// the frame that it has.
func (s *Sink) frameOf(e *deflate.Encoder, left *spool.RecoveredBlock) (f spool.Frame, err error) {
	f, framed, err := left.Frame()
	if errors.Is(err, spool.ErrDamaged) { // it was whole when the spool was read
		s.batcher.quarantine(f.Events)
		s.cfg.Logger.Error("s3sink: a part of the spool was damaged while it was read, and is not delivered; look after this machine's memory and disk",
			slog.Int64("events", f.Events), slog.Any("error", err))
		return spool.Frame{}, nil
	}
	if framed || err != nil {
		return f, err
	}
	lines, err := left.Lines()
	if err != nil || len(lines) == 0 {
		return f, err
	}
	f = spool.Frame{
		Events: int64(bytes.Count(lines, newline)), First: left.First, Last: left.Last,
		Run: left.Run, Partition: left.Partition, Block: left.Block,
	}
	f.Frame, err = e.Frame([][]byte{lines})
	return f, err
}

// durable waits until what was added before is on disk, where Track promises
// that.
func (s *Sink) durable(ctx context.Context) error {
	if s.journal == nil || s.cfg.Durability != SyncEach {
		return nil
	}
	if ctx == noWait {
		ctx = context.Background()
	}
	switch err := s.journal.Commit(ctx); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	default:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, &SpoolError{Err: err})
	}
}

// spoolReady returns why the spool takes no event now, or nil.
func (s *Sink) spoolReady() error {
	if s.journal == nil {
		return nil
	}
	if s.journal.Bytes() > s.cfg.MaxSpoolBytes {
		return &noRoomError{cause: s.cause(), spool: true}
	}
	room := s.journal.Room()
	if room < s.batcher.unwrittenBytes(room) {
		room = s.journal.RefreshRoom() // other programs may have given some back
	}
	if room < s.batcher.unwrittenBytes(room) {
		return fmt.Errorf("%w (the volume of the spool is nearly full, with %d bytes free besides the reserve): %w",
			s.noRoom(), max(0, room), &SpoolError{Err: vfs.ErrFull})
	}
	if s.cfg.Durability == SyncEach {
		if err := s.journal.Err(); err != nil {
			return &SpoolError{Err: err}
		}
	}
	return nil
}

// awaitRecovery waits until what earlier runs have left is taken over, so that
// Close can upload it, or until ctx ends.
func (s *Sink) awaitRecovery(ctx context.Context) {
	if s.journal == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		s.recovery.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.stopRecovery()
	<-done
}

// errUnread is why Close cannot say that everything is in S3.
var errUnread = errors.New("not all that earlier runs have left was read")

// notRecovered returns it, if the sink has not taken over all that earlier runs
// have left: the rest is in no count.
func (s *Sink) notRecovered() error {
	if s.journal == nil {
		return nil
	}
	if err := s.unread.Load(); err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	if !s.batcher.isRecovering() {
		return nil
	}
	return errUnread
}

// closeSpool leaves what is not delivered for the next sink. After a SpoolError
// some of it may not be there.
func (s *Sink) closeSpool() error {
	defer s.spoolDir.Close()
	if err := s.journal.Close(); err != nil {
		failed := &SpoolError{Err: err}
		s.cfg.Logger.Error("s3sink: the spool's last commit failed", slog.Any("error", failed), slog.String("file", failed.File()))
		return failed
	}
	return nil
}
