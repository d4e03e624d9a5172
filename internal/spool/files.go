package spool

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"sync"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
)

// files is the set of journal files, oldest first, with the pins that keep each
// of them. It is guarded by the journal's commitMu, except readAt and
// readPayload.
//
// A pin is the live records of one block or segment in one file. A block pins
// its stages until its frame is on disk. A segment pins its frames and its seal
// until its "delivered" record is on disk. Files are removed oldest first, each
// removal synced before the next, so a "delivered" record is never removed
// before the frames it cancels. In another order events would be delivered
// twice:
//
//  1. File 1 has the frames and the seal of a segment, file 2 its "delivered"
//     record. Neither is pinned any more.
//  2. Both are unlinked. A power failure takes the unlink of file 1 back, but
//     not that of file 2.
//  3. Recovery finds a sealed segment without a "delivered" record, and
//     delivers it again.
type files struct {
	dir             vfs.Dir
	maxFileBytes    int64   // size limit of a file
	preallocate     int64   // bytes to preallocate for small groups; 0: none
	oldFiles        []*file // files of previous runs, until adopted
	all             []*file
	current         *file  // the file that groups are appended to, the last in all; or nil
	lastNumber      uint64 // number of the newest file
	watermarks      []watermarkRecord
	notedID         uint64 // last id known to be in the directory's note
	lastID          func() uint64
	adopted         bool // all includes the files of previous runs
	unlinksUnsynced bool // unlinks may not be on disk yet
	w               writer
	reserve         reserve

	deliveredEarly []segmentID       // segments delivered before adopted; recovery may have pins for them
	blockPins      map[blockID][]pin // stages of blocks whose frame is not on disk
	segmentPins    map[segmentID][]pin

	mu      sync.Mutex
	handles []*handle // most recently used last
}

// pin is the live records of one owner, a block or a segment, in one file.
type pin struct {
	file    *file
	records int
	bytes   int64
}

// pin returns the pin of one record.
func (e extent) pin() pin { return pin{e.file, 1, e.size} }

// file is one journal file. Its name has its number and its salt, and no data
// of the user.
type file struct {
	name           string
	number         uint64
	salt           uint32
	appender       *handle // nil unless current
	size           int64   // bytes appended
	preallocatedTo int64   // end of the preallocated zeros, if beyond size
	syncedTo       int64   // bytes known to be fsynced
	pins           int     // number of blocks and segments with live records in it
	liveBytes      int64   // bytes of those records
	unlinked       bool    // unlinked, but the unlink may not be on disk
	discarded      bool    // no commit in this file ever succeeded
	uncopyable     bool    // has live records that cannot be read
	lastID         uint64  // greatest last-id record in it
	groupLastID    uint64  // last id that the current group records

	superseded map[int64]struct{} // ends of the records that recovery found again in a later file

	// Guarded by files.mu.
	closeWhenIdle bool              // removed; close its handle when it is idle
	movedTo       map[int64]*extent // by offset in this file: where a copied payload is now
	copiedHere    map[int64]*extent // by offset in this file: payloads copied from other files
}

const nameFormat = "%016x-%s.journal"

func newFiles(dir vfs.Dir, maxFileBytes, preallocate, reserveBytes int64) *files {
	return &files{
		dir: dir, maxFileBytes: maxFileBytes, preallocate: preallocate, reserve: reserve{dir: dir, want: reserveBytes},
		blockPins: map[blockID][]pin{}, segmentPins: map[segmentID][]pin{},
	}
}

// appendAndSync appends a group to the current file, or to a new one, and
// fsyncs it. After an error the group is not in the journal, and the file is
// abandoned: once an fsync has failed, a later one proves nothing about the
// same pages.
func (fs *files) appendAndSync(group func(*file, *writer) error) error {
	f, created := fs.current, false
	if f == nil {
		var err error
		if f, err = fs.createFile(); err != nil {
			return err
		}
		created = true
	}
	from := f.size
	err := group(f, &fs.w)
	if err == nil {
		fs.preallocateFor(f, f.size-from)
		err = f.appender.file.Sync()
	}
	if err == nil && created {
		err = fs.dir.Sync()
	}
	if err != nil {
		fs.abandon(f)
		return err
	}
	f.syncedTo, f.lastID = f.size, max(f.lastID, f.groupLastID)
	fs.current = f
	if created && fs.adopted {
		fs.dropStaleWatermarks()
	}
	return nil
}

// preallocateFor writes zeros after a small group. Later groups overwrite them,
// so the file's length stays and their fsync takes two thirds of the time.
// Larger groups would spend more on the zeros than they save. A nearly full
// volume keeps its room for records.
func (fs *files) preallocateFor(f *file, group int64) {
	f.preallocatedTo = max(f.preallocatedTo, f.size)
	if group > fs.preallocate/4 || f.preallocatedTo-f.size >= group || f.preallocatedTo+fs.preallocate > fs.maxFileBytes || fs.reserve.room() < 4*fs.preallocate {
		return
	}
	f.preallocatedTo += fs.preallocate
	_ = f.appender.file.Reserve(fs.preallocate) // an error costs only the saving: the next append may still fit
}

// createFile creates the next file. Its header is followed by the watermarks of
// earlier files.
func (fs *files) createFile() (*file, error) {
	if err := fs.removeDiscarded(); err != nil {
		return nil, err
	}
	fs.reserve.renew()
	if fs.lastNumber == 0 { // previous runs left no file; their unlinks must be on disk before a number is used again
		if err := fs.dir.Sync(); err != nil {
			return nil, err
		}
	}
	var random [4]byte
	rand.Read(random[:])
	fs.lastNumber++
	f := &file{
		name:   fmt.Sprintf(nameFormat, fs.lastNumber, hex.EncodeToString(random[:])),
		number: fs.lastNumber,
		salt:   binary.LittleEndian.Uint32(random[:]),
	}
	fs.all = append(fs.all, f)
	created, err := fs.dir.Create(f.name)
	if err != nil {
		fs.markFailed(f) // Create may have created it and failed later
		return nil, err
	}
	f.appender = fs.addHandle(f, created)
	fs.w.salt = f.salt
	fs.w.buf = append(fs.w.buf[:0], fileHeader{salt: f.salt, number: f.number, created: time.Now()}.encode()...)
	for _, d := range fs.watermarks {
		fs.w.watermark(d)
	}
	return f, nil
}

// spill appends the writer's buffer to the file if it has more than most bytes.
func (f *file) spill(w *writer, most int) error {
	if len(w.buf) <= most {
		return nil
	}
	n, err := f.appender.file.Append(w.buf)
	f.size += int64(n)
	w.buf = w.buf[:0]
	return err
}

// abandon stops writing to f after a failed write. If no commit in f succeeded,
// f is removed. If that removal is lost in a crash, the records of f are
// duplicates of those in the next file.
func (fs *files) abandon(f *file) {
	fs.releaseHandle(f.appender)
	f.appender, fs.current = nil, nil
	fs.w.buf = fs.w.buf[:0]
	fs.markFailed(f)
}

// addWatermark notes f's watermark, to be written after the header of each
// following file. Without it records of a failed commit would pass for fsynced
// ones:
//
//  1. The fsync of a commit fails. File 1 now ends in records that are in the
//     page cache alone. The retry in file 2 fails too, and the process is killed.
//  2. The next run reads the records from the page cache. File 1 is not the last
//     file, so all of it counts as fsynced. The run puts an object from it.
//  3. A power failure drops the pages. A third run finds the segment without its
//     last frame and seal, and delivers its events again.
//
// With the watermark, the next run writes the records to a file of its own before
// it puts the object.
func (fs *files) addWatermark(f *file) {
	fs.watermarks = append(fs.watermarks, watermarkRecord{f.number, f.syncedTo})
}

// markFailed adds a watermark for f, and removes f if no commit in it
// succeeded.
func (fs *files) markFailed(f *file) {
	fs.addWatermark(f)
	f.discarded = f.syncedTo == 0
	_ = fs.removeDiscarded() // createFile returns the error if too many files remain
}

// maxDiscarded is a limit: while this number of discarded files cannot be removed,
// no file is created.
const maxDiscarded = 16

// removeDiscarded removes the discarded files. It returns an error when
// maxDiscarded of them are left.
func (fs *files) removeDiscarded() (err error) {
	left := 0
	fs.all = slices.DeleteFunc(fs.all, func(f *file) bool {
		if !f.discarded {
			return false
		}
		if failed := fs.unlink(f); failed != nil {
			if left++; left >= maxDiscarded {
				err = failed
			}
			return false
		}
		fs.closeRemoved(f)
		fs.unlinksUnsynced = true
		return true
	})
	return err
}

func (fs *files) unlink(f *file) error {
	if err := fs.dir.Remove(f.name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}

// dropStaleWatermarks drops the watermarks of removed files.
func (fs *files) dropStaleWatermarks() {
	exists := map[uint64]bool{}
	for _, f := range fs.all {
		exists[f.number] = true
	}
	if !fs.adopted {
		for _, f := range fs.oldFiles {
			exists[f.number] = true
		}
	}
	fs.watermarks = slices.DeleteFunc(fs.watermarks, func(d watermarkRecord) bool { return !exists[d.file] })
}

// endIfFull ends the current file at the size limit. While the reserve is not
// whole, the limit is small, so that deliveries free room soon.
func (fs *files) endIfFull() {
	if fs.current == nil {
		return
	}
	limit := fs.maxFileBytes
	if fs.reserve.held < fs.reserve.want/2 && fs.reserve.room() < fs.maxFileBytes {
		limit = min(limit, fs.reserve.want/16)
	}
	if fs.current.size >= limit {
		fs.endCurrent()
	}
}

// renewReserve creates the reserve again when the volume has room for it.
func (fs *files) renewReserve() {
	if len(fs.all) > 0 {
		fs.reserve.renew()
	}
}

// endCurrent ends the current file. The next file has its watermark, because
// zeros may follow its records, and it may be truncated later.
func (fs *files) endCurrent() {
	f := fs.current
	if f == nil {
		return
	}
	fs.addWatermark(f)
	fs.releaseHandle(f.appender)
	f.appender, fs.current = nil, nil
}

// addPin adds live records to an owner's pin.
func addPin[K comparable](owners map[K][]pin, id K, more pin) {
	more.file.liveBytes += more.bytes
	held := owners[id]
	for i := range held {
		if s := &held[i]; s.file == more.file {
			s.records += more.records
			s.bytes += more.bytes
			return
		}
	}
	owners[id] = append(held, more)
	more.file.pins++
}

// unpin removes one live record from the owner's pin on f. It returns false if
// there is no such pin. If the record's size is not known, bytes may be less.
func unpin[K comparable](owners map[K][]pin, id K, f *file, bytes int64) bool {
	held := owners[id]
	at := slices.IndexFunc(held, func(s pin) bool { return s.file == f })
	if at < 0 {
		return false
	}
	s := &held[at]
	if s.records--; s.records > 0 {
		bytes = min(bytes, s.bytes)
		s.bytes -= bytes
		f.liveBytes -= bytes
		return true
	}
	f.liveBytes -= s.bytes
	f.pins--
	if len(held) == 1 {
		delete(owners, id)
	} else {
		owners[id] = slices.Delete(held, at, at+1)
	}
	return true
}

// unpinAll removes all pins of an owner.
func unpinAll[K comparable](owners map[K][]pin, id K) {
	for _, s := range owners[id] {
		s.file.pins--
		s.file.liveBytes -= s.bytes
	}
	delete(owners, id)
}

// isPinned reports whether the owner has a pin on f.
func isPinned[K comparable](owners map[K][]pin, id K, f *file) bool {
	return slices.ContainsFunc(owners[id], func(s pin) bool { return s.file == f })
}

// noteDelivered notes that the "delivered" record of a segment is on disk.
func (fs *files) noteDelivered(id segmentID) {
	unpinAll(fs.segmentPins, id)
	if !fs.adopted {
		fs.deliveredEarly = append(fs.deliveredEarly, id)
	}
}

// removeUnpinned removes at most most unpinned files, oldest first. It reports
// whether more could be removed. After an error the caller must try again.
//
// Nothing is removed until recovery has adopted the old files, because a
// "delivered" record in a file of this run may cancel frames in an old one:
//
//  1. A segment of a previous run is delivered during recovery. Its
//     "delivered" record is in file 2 of this run, its frames are in old file
//     1.
//  2. Nothing pins file 2, and it is removed.
//  3. The process is killed before file 1 is removed. The next run delivers
//     the segment again.
func (fs *files) removeUnpinned(most int) (more bool, err error) {
	_ = fs.removeDiscarded() // createFile returns the error if too many files remain
	if fs.unlinksUnsynced {
		if err := fs.dir.Sync(); err != nil { // watermarks of the unlinked files may be in the files removed below
			return false, err
		}
	}
	unlinked := fs.unlinksUnsynced
	fs.unlinksUnsynced = false
	if unlinked {
		fs.dropStaleWatermarks() // a failing disk adds two watermarks with each commit
	}
	if !fs.adopted {
		return false, nil
	}
	for len(fs.all) > 0 && fs.all[0].pins == 0 && fs.all[0] != fs.current {
		if most--; most < 0 {
			return true, nil
		}
		f := fs.all[0]
		if err := fs.saveLastID(f); err != nil {
			return false, err
		}
		if !f.unlinked {
			if err := fs.unlink(f); err != nil {
				return false, err
			}
		}
		f.unlinked = true
		if err := fs.dir.Sync(); err != nil {
			return false, err
		}
		fs.all = fs.all[1:]
		fs.closeRemoved(f)
	}
	return false, nil
}

// saveLastID writes the last id to the directory's note before f is removed, if
// no other file has it.
func (fs *files) saveLastID(f *file) error {
	hasID := func(g *file) bool { return g != f && g.lastID >= f.lastID }
	if f.lastID <= fs.notedID || slices.ContainsFunc(fs.all, hasID) {
		return nil
	}
	id := fs.lastID()
	if err := writeNote(fs.dir, id); err != nil {
		return err
	}
	fs.notedID = id
	return nil
}

// close closes all files, and removes the unpinned ones.
func (fs *files) close() {
	fs.endCurrent()
	_, _ = fs.removeUnpinned(len(fs.all)) // the next run removes the rest
	if fs.adopted && len(fs.all) == 0 && fs.reserve.exists {
		_ = fs.reserve.remove() // the next run adopts it
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, h := range fs.handles {
		h.file.Close()
	}
	fs.handles = nil
}

// totalBytes returns the size of all files.
func (fs *files) totalBytes() (n int64) {
	for _, f := range fs.all {
		n += max(f.size, f.preallocatedTo)
	}
	return n
}

// liveBytes returns the size of all live records.
func (fs *files) liveBytes() (n int64) {
	for _, f := range fs.all {
		n += f.liveBytes
	}
	return n
}

// maxOpen is the number of files that stay open while no one reads them.
const maxOpen = 8

// handle is an open file.
type handle struct {
	of    *file
	file  vfs.File
	users int
}

func (fs *files) readAt(f *file, p []byte, off int64) (int, error) {
	h, err := fs.acquire(f)
	if err != nil {
		return 0, err
	}
	defer fs.releaseHandle(h)
	return h.file.ReadAt(p, off)
}

// readPayload reads from offset off of a payload. The payload may have been
// copied to another file since e was noted.
func (fs *files) readPayload(e extent, p []byte, off int64) (int, error) {
	fs.mu.Lock()
	if now := e.file.movedTo[e.offset]; now != nil {
		e = *now
	}
	h, err := fs.acquireLocked(e.file) // under the lock, so that the cleaner cannot move the payload and remove the file first
	fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	defer fs.releaseHandle(h)
	return h.file.ReadAt(p, e.offset+off)
}

// redirect sends readers of a payload to its copy. All copies of a payload
// share one entry, so a second copy is also found in one step.
func (fs *files) redirect(from, to extent) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	now := from.file.copiedHere[from.offset]
	if now == nil {
		now = new(extent)
		if from.file.movedTo == nil {
			from.file.movedTo = map[int64]*extent{}
		}
		from.file.movedTo[from.offset] = now
	}
	*now = to
	if to.file.copiedHere == nil {
		to.file.copiedHere = map[int64]*extent{}
	}
	to.file.copiedHere[to.offset] = now
}

// canReadElsewhere reports whether the disk can read anything: a first, middle
// or last byte of a file of previous runs, outside the given page of except.
func (fs *files) canReadElsewhere(except *file, page int64) bool {
	for _, f := range fs.oldFiles {
		for _, off := range []int64{0, f.size / 2, f.size - 1} {
			if f == except && off/pageSize == page/pageSize {
				continue
			}
			if n, _ := fs.readAt(f, make([]byte, 1), off); n > 0 {
				return true
			}
		}
	}
	return false
}

func (fs *files) acquire(f *file) (*handle, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.acquireLocked(f)
}

func (fs *files) acquireLocked(f *file) (*handle, error) {
	for i, h := range fs.handles {
		if h.of == f {
			fs.handles = append(slices.Delete(fs.handles, i, i+1), h)
			h.users++
			return h, nil
		}
	}
	opened, err := fs.dir.Open(f.name)
	if err != nil {
		return nil, err
	}
	return fs.addHandleLocked(f, opened), nil
}

// addHandle keeps an open file. Its content can be read even after its name is
// removed.
func (fs *files) addHandle(f *file, opened vfs.File) *handle {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.addHandleLocked(f, opened)
}

func (fs *files) addHandleLocked(f *file, opened vfs.File) *handle {
	h := &handle{of: f, file: opened, users: 1}
	fs.handles = append(fs.handles, h)
	return h
}

func (fs *files) releaseHandle(h *handle) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	h.users--
	fs.closeIdleLocked()
}

// closeRemoved closes the handle of a removed file, now or when its last reader
// is done.
func (fs *files) closeRemoved(f *file) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.closeWhenIdle = true
	fs.closeIdleLocked()
}

// closeIdleLocked closes idle handles of removed files, and the least recently
// used idle ones beyond maxOpen.
func (fs *files) closeIdleLocked() {
	excess := len(fs.handles) - maxOpen
	fs.handles = slices.DeleteFunc(fs.handles, func(h *handle) bool {
		if h.users > 0 || !h.of.closeWhenIdle && excess <= 0 {
			return false
		}
		excess--
		h.file.Close()
		return true
	})
}
