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

// Durability is the promise about an event after Track has returned nil, in a
// sink with a SpoolDir.
type Durability int

// Levels of durability.
const (
	// SyncInterval loses at most the events of the last CommitInterval when
	// the process is killed or the power fails.
	SyncInterval Durability = iota

	// SyncEach loses no event: Track waits for the fsync. One write and one
	// fsync serve all callers of all sources that wait at the same time.
	SyncEach
)

// openSpool opens and locks Config.SpoolDir. It waits until ctx ends for another
// sink that has locked it.
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
		cfg.Logger.Warn("s3sink: other users had access to the spool directory or its files; "+
			"New has set the modes back to 0700 and 0600; if kubelet changes them for fsGroup, "+
			"set fsGroupChangePolicy: OnRootMismatch (docs/kubernetes.md)", attrs...)
	}
	if err := lockSpool(ctx, cfg.Logger, dir, where); err != nil {
		dir.Close()
		return nil, err
	}
	cfg.Logger.Info("s3sink: the spool directory is open and locked", where)
	if fs := dir.FileSystem(); fs.Volatile {
		cfg.Logger.Warn("s3sink: the file system of the spool directory is in memory or hides the disk below it: "+
			"fsynced events may not survive a power failure; put SpoolDir on a volume with a local disk",
			slog.String("file_system", fs.Name))
	}
	return dir, nil
}

// lockWarning is how long New waits for a locked directory before it logs a
// warning.
const lockWarning = time.Second

// lockSpool locks the directory. It waits until ctx ends for another sink that
// has locked it.
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
	// filesInSpool is the least number of full journal files that fill the
	// spool. The current file stays after its events are delivered. If it alone
	// could fill the spool, a full spool would never accept events again.
	filesInSpool = 8

	minFile = 64 << 10 // least size of a full journal file

	// reserveShare is the divisor of the spool limit that yields the reserve: half
	// of a journal file. The frame of a large block fits into it. The seals and
	// "delivered" records for a file of the smallest objects take a quarter of it.
	reserveShare = 2 * filesInSpool
	minReserve   = 64 << 10
	maxReserve   = 8 << 20
)

// spoolLimit returns the largest size of the spool: MaxSpoolBytes, or the bytes
// that its volume has for it, whichever is less.
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

// startSpool gives the batcher a journal in dir, and starts the recovery of
// previous runs.
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

// writeAhead is the number of bytes that the journal preallocates with SyncEach.
// Smaller preallocations cost a metadata sync too often; larger ones delay the
// commit that writes the zeros.
const writeAhead = 512 << 10

// rereadInterval is the wait before an unreadable spool is read again.
const rereadInterval = 10 * time.Second

// recover delivers the events that previous runs have left in the spool. Blocks
// of this run are held back meanwhile, so that their objects get later keys.
func (s *Sink) recover(ctx context.Context) {
	found, err := s.journal.Recover(ctx)
	for err != nil {
		if !s.waitToRereadSpool(ctx, err) {
			return
		}
		found, err = s.journal.Recover(ctx)
	}
	s.unreadable.Store(nil)
	s.ids.Raise(found.LastID) // before this run draws its id and the key of a segment
	s.logRecovery(found)
	found.Sealed = slices.DeleteFunc(found.Sealed, s.foreign)
	found.Unfinished = slices.DeleteFunc(found.Unfinished, s.foreignTail)
	s.widenSessions(found)
	s.addSealedSegments(found.Sealed)
	for _, t := range found.Unfinished {
		if ctx.Err() != nil {
			return
		}
		err := s.finishPartition(ctx, t)
		if err != nil && ctx.Err() != nil {
			return // delivering the next partition now would break the order of keys
		}
		if err != nil {
			gone := &SpoolError{Err: fmt.Errorf("recovery: a journal file of a previous run has disappeared or lost its end: %w", err)}
			s.unreadable.Store(gone)
			s.cfg.Logger.Error("s3sink: recovery: a journal file has disappeared or lost its end; the remaining recovered events of this source and day "+
				"are deferred to the next start and delivered after the events of this run; check the disk of SpoolDir",
				slog.String("source", t.Source), slog.Any("error", gone), slog.String("file", gone.File()))
		}
	}
	s.batcher.endRecovery()
}

// recoverEarly delivers sealed segments of previous runs before recovery has ended.
func (s *Sink) recoverEarly(sealed []*spool.Segment) {
	sealed = slices.DeleteFunc(sealed, s.foreign)
	s.widenSessions(&spool.Recovered{Sealed: sealed})
	s.addSealedSegments(sealed)
}

// addSealedSegments counts and uploads sealed segments of previous runs.
func (s *Sink) addSealedSegments(sealed []*spool.Segment) {
	for _, seg := range sealed {
		s.batcher.addRecovered(seg, s.sources.get(s, seg.Source))
		s.uploadRecovered(seg)
	}
}

// uploadRecovered queues a segment of a previous run. The bucket may deny only the
// keys of another KeyFormat, so those segments park independently.
func (s *Sink) uploadRecovered(seg *spool.Segment) {
	s.uploader.AddRecovered(seg, s.hasOtherKeyFormat(seg))
}

// waitToRereadSpool logs that the spool cannot be read, and waits before the next
// attempt. It returns false if ctx has ended.
func (s *Sink) waitToRereadSpool(ctx context.Context, err error) bool {
	if ctx.Err() == nil {
		unread := &SpoolError{Err: fmt.Errorf("recovery: read the events of previous runs: %w", err)}
		s.unreadable.Store(unread)
		s.cfg.Logger.Error("s3sink: recovery: the spool cannot be read; events of this run are not uploaded before it can; "+
			"recovery tries again every 10 seconds; check the disk of SpoolDir", slog.Any("error", unread), slog.String("file", unread.File()))
	}
	return pause(ctx, rereadInterval)
}

// pause waits for d. It returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// logRecovery logs and counts damage and foreign files that recovery has found.
func (s *Sink) logRecovery(found *spool.Recovered) {
	s.spoolDamaged.Store(found.DamagedBytes)
	s.spoolTorn.Store(found.TornBytes)
	if lost := found.LostEvents(); len(found.DamagedFiles) > 0 || lost > 0 {
		attrs := []any{slog.Any("files", found.DamagedFiles), slog.Int64("bytes", found.DamagedBytes),
			slog.Int64("events_lost_in_objects", lost), slog.Int64("bytes_copied", found.CopiedBytes)}
		if found.CopyErr != nil {
			attrs = append(attrs, slog.Any("not_all_copied", found.CopyErr))
		}
		s.cfg.Logger.Error("s3sink: the spool is damaged: journal files have lost fsynced bytes; intact events are delivered, "+
			"and the damaged bytes are copied to the subdirectory corrupt of the spool (docs/spool-format.md); check the disk of SpoolDir", attrs...)
	}
	if len(found.UnknownVersion) > 0 {
		s.cfg.Logger.Warn("s3sink: the spool holds journal files of another version of s3sink; this version does not read, deliver or remove them; "+
			"start that version to deliver them", slog.Any("files", found.UnknownVersion))
	}
	s.batcher.quarantine(found.Quarantined)
}

// foreign reports whether a segment is for a bucket or prefix that this sink does
// not write to. The segment stays in the spool for a sink that does.
func (s *Sink) foreign(seg *spool.Segment) bool {
	if seg.Bucket == s.bucket && strings.HasPrefix(seg.Key, s.prefix) {
		return false
	}
	if s.foreignEvents.Add(seg.Events) == seg.Events {
		s.cfg.Logger.Warn("s3sink: the spool holds objects for another bucket or prefix; this sink does not deliver them, and they stay in the spool; "+
			"start a sink with that bucket and prefix and this SpoolDir",
			slog.String("bucket", seg.Bucket), slog.String("key", seg.Key))
	}
	return true
}

// foreignTail reports whether a segment of a tail is for another bucket or prefix.
func (s *Sink) foreignTail(t spool.UnfinishedPartition) bool {
	found := t.Segment != nil && s.foreign(t.Segment)
	for _, b := range t.Damaged { // no early return: foreign counts the events of each
		found = b.Segment.Key != "" && s.foreign(b.Segment) || found
	}
	return found
}

// finishPartition delivers an unfinished partition of a previous run. After an
// error, the blocks before the failed one are sealed into segments, and the
// others stay in the spool.
func (s *Sink) finishPartition(ctx context.Context, t spool.UnfinishedPartition) (failed error) {
	e, err := deflate.NewEncoder(s.cfg.CompressionLevel)
	if err != nil {
		return err
	}
	b, src := s.batcher, s.sources.get(s, t.Source)
	var seg *spool.Segment
	queued := int64(0)
	resume := func() { // continues with t.Segment, after the blocks ahead of it
		if seg != nil {
			b.sealRecovered(seg, src, s.uploadRecovered)
		}
		seg, t.Segment = t.Segment, nil
	}
	for i := range t.Blocks {
		if i == t.BlocksBeforeSegment && t.Segment != nil {
			resume()
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
			b.sealRecovered(seg, src, s.uploadRecovered)
			seg = nil
		}
		if seg == nil {
			seg = b.openRecovered(&partition{source: src, day: t.Day})
		}
		if failed = b.spool.Append(seg, f); failed != nil {
			break
		}
		if queued += int64(len(f.Payload)); len(t.Damaged) > 0 && queued > s.cfg.MaxMemory/16 { // frames of whole objects, which MaxMemory does not count
			queued = 0
			if failed = s.waitForCommit(ctx); failed != nil {
				break
			}
		}
	}
	if failed == nil && t.Segment != nil {
		resume()
	}
	if seg != nil && seg.Events > 0 {
		b.sealRecovered(seg, src, s.uploadRecovered)
	}
	if failed == nil {
		s.removeReplaced(t.Damaged)
	}
	return failed
}

// waitForFrame returns the frame of a recovered block. It waits as long as the disk
// cannot read the block, because skipping the block would break the order of
// events. It returns [io.EOF] if the bytes no longer exist.
func (s *Sink) waitForFrame(ctx context.Context, e *deflate.Encoder, left *spool.RecoveredBlock) (spool.Frame, error) {
	before := s.unreadable.Load()
	f, err := s.recoveredFrame(e, left)
	for err != nil && !errors.Is(err, io.EOF) && s.waitToRereadSpool(ctx, err) {
		f, err = s.recoveredFrame(e, left)
	}
	if err == nil {
		s.unreadable.Store(before)
	}
	return f, err
}

// waitForCommit waits until the appended frames are on disk. The journal retries
// by itself, and [Sink.Err] returns its error.
func (s *Sink) waitForCommit(ctx context.Context) error {
	for s.journal.Commit(ctx) != nil {
		if !pause(ctx, time.Second) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// removeReplaced removes damaged segments whose intact blocks are in other
// segments now, and counts their lost events.
func (s *Sink) removeReplaced(all []spool.DamagedSegment) {
	for _, broken := range all {
		s.journal.RemoveReplaced(broken.Segment)
		s.batcher.quarantine(broken.LostEvents)
		if broken.LostEvents > 0 && broken.Segment.Key != "" {
			object := objectInfo(broken.Segment)
			object.Events = broken.LostEvents
			s.callCorruptHook(object, &UploadError{Key: object.Key, Err: fmt.Errorf("%w: %w", ErrDamaged, spool.ErrDamaged), class: s3put.Damaged})
		}
	}
}

// recoveredFrame returns the frame of a recovered block. It compresses a block that
// a previous run had only staged.
func (s *Sink) recoveredFrame(e *deflate.Encoder, left *spool.RecoveredBlock) (f spool.Frame, err error) {
	f, framed, err := left.Frame()
	if errors.Is(err, spool.ErrDamaged) { // the scan has read it intact
		s.batcher.quarantine(f.Events)
		s.cfg.Logger.Error("s3sink: recovery: a block no longer matches its checksum, although it did when recovery began; its events are not delivered; "+
			"check the memory and the disk of this machine",
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

// awaitDurable waits until every line that was added before the call is fsynced,
// with SyncEach. The commit that it waits for begins after the line was added, so
// it includes the line: see batcher.gather.
func (s *Sink) awaitDurable(ctx context.Context) error {
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

// spoolReady returns nil, or the reason why the spool cannot take an event now.
func (s *Sink) spoolReady() error {
	if s.journal == nil {
		return nil
	}
	if s.journal.Bytes() > s.cfg.MaxSpoolBytes {
		return &noRoomError{cause: s.cause(), spool: true}
	}
	room := s.journal.Room()
	if room < s.batcher.unwrittenBytes(room) {
		room = s.journal.RefreshRoom() // other programs may have freed space
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

// awaitRecovery waits until recovery has ended, so that Close can upload the
// recovered events, or until ctx ends. Then it stops recovery.
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

// errUnread says that Close cannot know whether every event is in S3.
var errUnread = errors.New("recovery has not read all events of previous runs")

// notRecovered returns errUnread if recovery is incomplete: the events that it has
// not read are in no count of Stats.
func (s *Sink) notRecovered() error {
	if s.journal == nil {
		return nil
	}
	if err := s.unreadable.Load(); err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	if !s.batcher.isRecovering() {
		return nil
	}
	return errUnread
}

// closeSpool closes the journal with a last commit of the pending events, for the
// next sink. After a SpoolError some of these events may not be on disk.
func (s *Sink) closeSpool() error {
	defer s.spoolDir.Close()
	if err := s.journal.Close(); err != nil {
		failed := &SpoolError{Err: err}
		s.cfg.Logger.Error("s3sink: close: the last commit to the spool failed; the events that are only in memory are lost (CloseError.Dropped); "+
			"check the disk of SpoolDir", slog.Any("error", failed), slog.String("file", failed.File()))
		return failed
	}
	return nil
}
