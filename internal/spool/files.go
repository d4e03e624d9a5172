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

// files are the journal's files, oldest first, and what each is needed for.
// They belong to the goroutine of the journal, but for readAt.
//
// A file goes when nothing in it is needed: its stages have frames on disk, and
// the segments of its frames are delivered, which is on disk too. The oldest
// goes first, and the next one only when that is on disk: so nothing that a
// record ends outlives the record.
type files struct {
	dir     vfs.Dir
	full    int64   // bytes, of a file
	ahead   int64   // bytes to reserve for small groups, or 0
	old     []*file // of earlier runs
	all     []*file
	current *file  // that is appended to; the last one, or nil
	last    uint64 // number
	doubts  []doubtRecord
	noted   uint64 // last id in the directory's note, as far as it is known
	lastID  func() uint64
	adopted bool // all holds the files of earlier runs too, if there were any
	swept   bool // files were removed, but perhaps not on disk
	w       writer
	reserve reserve

	ended    []segmentID         // delivered before adopted, so recovery may have counted their files
	blocks   map[blockID][]share // the stages of blocks whose frame is not on disk
	segments map[segmentID][]share

	mu   sync.Mutex
	open []*handle // last used last
}

// share is the live records of one owner, a block or a segment, in one file.
type share struct {
	file    *file
	records int
	bytes   int64
}

// share is that of one record.
func (e extent) share() share { return share{e.file, 1, e.size} }

// file is one journal file. Its name tells the order; nothing of the user's is
// in it.
type file struct {
	name    string
	number  uint64
	salt    uint32
	append  *handle // nil when it is not current
	size    int64   // of what was appended
	end     int64   // of what was reserved, if that is more
	durable int64   // known to be on disk
	needs   int     // blocks and segments that need it
	live    int64   // bytes of the records that they need
	gone    bool    // removed, but perhaps not on disk
	void    bool    // nothing in it counts
	stuck   bool    // has live records that cannot be copied
	lastID  uint64  // the last one that it says
	nextID  uint64  // that it says when the group under way is on disk

	superseded map[int64]struct{} // ends of the records that recovery has found again in a later file

	// Under files.mu.
	closed bool              // nobody will read it any more
	moved  map[int64]*extent // where payloads are that were in this file, by their offset
	guests map[int64]*extent // the payloads that were copied into this file, by their offset
}

const nameFormat = "%016x-%s.journal"

func newFiles(dir vfs.Dir, full, ahead, kept int64) *files {
	return &files{
		dir: dir, full: full, ahead: ahead, reserve: reserve{dir: dir, want: kept},
		blocks: map[blockID][]share{}, segments: map[segmentID][]share{},
	}
}

// write appends a group to the current file, or to a new one, and syncs it.
// After an error nothing of it counts, and the file is not written to again.
func (fs *files) write(group func(*file, *writer) error) error {
	f, created := fs.current, false
	if f == nil {
		var err error
		if f, err = fs.create(); err != nil {
			return err
		}
		created = true
	}
	from := f.size
	err := group(f, &fs.w)
	if err == nil {
		fs.writeAhead(f, f.size-from)
		err = f.append.file.Sync()
	}
	if err == nil && created {
		err = fs.dir.Sync()
	}
	if err != nil {
		fs.freeze(f)
		return err
	}
	f.durable, f.lastID = f.size, max(f.lastID, f.nextID)
	fs.current = f
	if created && fs.adopted {
		fs.forgetDoubts()
	}
	return nil
}

// writeAhead has the next groups overwrite zeros that are on disk: to sync them,
// the file system need not note a longer file. That takes two thirds of the time,
// for groups so small that writing the zeros takes less than it saves. A volume
// that is nearly full has better use for its room.
func (fs *files) writeAhead(f *file, group int64) {
	f.end = max(f.end, f.size)
	if group > fs.ahead/4 || f.end-f.size >= group || f.end+fs.ahead > fs.full || fs.reserve.room() < 4*fs.ahead {
		return
	}
	f.end += fs.ahead
	f.append.file.Reserve(fs.ahead) // if it fails, what is appended may still fit
}

// create makes the next file. It begins with where earlier ones end.
func (fs *files) create() (*file, error) {
	if err := fs.sweep(); err != nil {
		return nil, err
	}
	fs.reserve.renew()
	if fs.last == 0 { // an earlier run may have removed all, which must be on disk: numbers begin again
		if err := fs.dir.Sync(); err != nil {
			return nil, err
		}
	}
	var random [4]byte
	rand.Read(random[:])
	fs.last++
	f := &file{
		name:   fmt.Sprintf(nameFormat, fs.last, hex.EncodeToString(random[:])),
		number: fs.last,
		salt:   binary.LittleEndian.Uint32(random[:]),
	}
	fs.all = append(fs.all, f)
	created, err := fs.dir.Create(f.name)
	if err != nil {
		fs.discard(f) // it may be there all the same
		return nil, err
	}
	f.append = fs.hold(f, created)
	fs.w.salt = f.salt
	fs.w.buf = append(fs.w.buf[:0], fileHeader{salt: f.salt, number: f.number, made: time.Now()}.encode()...)
	for _, d := range fs.doubts {
		fs.w.doubt(d)
	}
	return f, nil
}

// spill writes what the writer holds, if that is more than most.
func (f *file) spill(w *writer, most int) error {
	if len(w.buf) <= most {
		return nil
	}
	n, err := f.append.file.Append(w.buf)
	f.size += int64(n)
	w.buf = w.buf[:0]
	return err
}

// freeze gives a file up for writing. One that holds nothing that counts is
// removed; should it come back, its records are known from elsewhere.
func (fs *files) freeze(f *file) {
	fs.release(f.append)
	f.append, fs.current = nil, nil
	fs.w.buf = fs.w.buf[:0]
	fs.discard(f)
}

// doubt has the next file say how much of this one is known to be on disk.
func (fs *files) doubt(f *file) {
	fs.doubts = append(fs.doubts, doubtRecord{f.number, f.durable})
}

// discard notes that a file is in doubt, and removes it if nothing in it counts.
func (fs *files) discard(f *file) {
	fs.doubt(f)
	f.void = f.durable == 0
	fs.sweep()
}

// maxVoid is how many files in which nothing counts may be there, because they
// cannot be removed, before no other is made.
const maxVoid = 16

// sweep removes the files in which nothing counts, wherever they are. After an
// error there are too many of them.
func (fs *files) sweep() (err error) {
	left := 0
	fs.all = slices.DeleteFunc(fs.all, func(f *file) bool {
		if !f.void {
			return false
		}
		if failed := fs.remove(f); failed != nil {
			if left++; left >= maxVoid {
				err = failed
			}
			return false
		}
		fs.forget(f)
		fs.swept = true
		return true
	})
	return err
}

func (fs *files) remove(f *file) error {
	if err := fs.dir.Remove(f.name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}

// forgetDoubts leaves out those of files that are gone.
func (fs *files) forgetDoubts() {
	there := map[uint64]bool{}
	for _, f := range fs.all {
		there[f.number] = true
	}
	if !fs.adopted {
		for _, f := range fs.old {
			there[f.number] = true
		}
	}
	fs.doubts = slices.DeleteFunc(fs.doubts, func(d doubtRecord) bool { return !there[d.file] })
}

// roll ends the current file if it is full. It is on disk as a whole, and the
// next one says so. Without a whole reserve files are small, so that what is
// delivered soon gives its room back.
func (fs *files) roll() {
	if fs.current == nil {
		return
	}
	full := fs.full
	if fs.reserve.held < fs.reserve.want/2 && fs.reserve.room() < fs.full {
		full = min(full, fs.reserve.want/16)
	}
	if fs.current.size >= full {
		fs.end()
	}
}

// renewReserve makes the reserve again when there is room for it.
func (fs *files) renewReserve() {
	if len(fs.all) > 0 {
		fs.reserve.renew()
	}
}

// end ends the current file. The next one says where that is: something may be
// reserved behind, and somebody may cut it off.
func (fs *files) end() {
	f := fs.current
	if f == nil {
		return
	}
	fs.doubt(f)
	fs.release(f.append)
	f.append, fs.current = nil, nil
}

// need notes live records of an owner.
func need[K comparable](owners map[K][]share, id K, more share) {
	more.file.live += more.bytes
	held := owners[id]
	for i := range held {
		if s := &held[i]; s.file == more.file {
			s.records += more.records
			s.bytes += more.bytes
			return
		}
	}
	owners[id] = append(held, more)
	more.file.needs++
}

// release takes back one live record in f. It reports false if the owner has none
// there. A caller who does not know the record's size may pass less.
func release[K comparable](owners map[K][]share, id K, f *file, bytes int64) bool {
	held := owners[id]
	at := slices.IndexFunc(held, func(s share) bool { return s.file == f })
	if at < 0 {
		return false
	}
	s := &held[at]
	if s.records--; s.records > 0 {
		bytes = min(bytes, s.bytes)
		s.bytes -= bytes
		f.live -= bytes
		return true
	}
	f.live -= s.bytes
	f.needs--
	if len(held) == 1 {
		delete(owners, id)
	} else {
		owners[id] = slices.Delete(held, at, at+1)
	}
	return true
}

// done notes that nothing of an owner is needed any more.
func done[K comparable](owners map[K][]share, id K) {
	for _, s := range owners[id] {
		s.file.needs--
		s.file.live -= s.bytes
	}
	delete(owners, id)
}

// holds reports whether f has a live record of an owner.
func holds[K comparable](owners map[K][]share, id K, f *file) bool {
	return slices.ContainsFunc(owners[id], func(s share) bool { return s.file == f })
}

// deliver notes that the "delivered" record of a segment is on disk.
func (fs *files) deliver(id segmentID) {
	done(fs.segments, id)
	if !fs.adopted {
		fs.ended = append(fs.ended, id)
	}
}

// reap removes files that are not needed, oldest first, but so many at most. It
// reports whether there are more; after an error it must be tried again later.
// Before recovery has taken over those of earlier runs none goes: what says that
// a segment is delivered must outlive its frames, which may be in those.
func (fs *files) reap(most int) (more bool, err error) {
	fs.sweep()
	if fs.swept {
		if err := fs.dir.Sync(); err != nil { // one of those below may say what they are
			return false, err
		}
	}
	swept := fs.swept
	fs.swept = false
	if swept {
		fs.forgetDoubts() // each commit that fails brings two
	}
	if !fs.adopted {
		return false, nil
	}
	for len(fs.all) > 0 && fs.all[0].needs == 0 && fs.all[0] != fs.current {
		if most--; most < 0 {
			return true, nil
		}
		f := fs.all[0]
		if err := fs.noteID(f); err != nil {
			return false, err
		}
		if !f.gone {
			if err := fs.remove(f); err != nil {
				return false, err
			}
		}
		f.gone = true
		if err := fs.dir.Sync(); err != nil {
			return false, err
		}
		fs.all = fs.all[1:]
		fs.forget(f)
	}
	return false, nil
}

// noteID remembers the last id before f is removed, if no other file says it.
func (fs *files) noteID(f *file) error {
	says := func(g *file) bool { return g != f && !g.void && g.durable > 0 && g.lastID >= f.lastID }
	if f.lastID <= fs.noted || slices.ContainsFunc(fs.all, says) {
		return nil
	}
	id := fs.lastID()
	if err := writeNote(fs.dir, id); err != nil {
		return err
	}
	fs.noted = id
	return nil
}

// close lets go of everything, and removes what is not needed.
func (fs *files) close() {
	fs.end()
	fs.reap(len(fs.all))
	if fs.adopted && len(fs.all) == 0 && fs.reserve.exists {
		fs.reserve.remove()
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, h := range fs.open {
		h.file.Close()
	}
	fs.open = nil
}

// size returns the bytes of all files.
func (fs *files) size() (n int64) {
	for _, f := range fs.all {
		n += max(f.size, f.end)
	}
	return n
}

// live returns the bytes of all live records.
func (fs *files) live() (n int64) {
	for _, f := range fs.all {
		n += f.live
	}
	return n
}

// maxOpen is how many files stay open, whatever is read.
const maxOpen = 8

// handle is a file that is open.
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
	defer fs.release(h)
	return h.file.ReadAt(p, off)
}

// readPayload reads from offset off of a payload, which may have been copied to
// another file since its extent was noted.
func (fs *files) readPayload(e extent, p []byte, off int64) (int, error) {
	fs.mu.Lock()
	if now := e.file.moved[e.offset]; now != nil {
		e = *now
	}
	h, err := fs.acquireLocked(e.file) // before the cleaner can move it again and remove this file
	fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	defer fs.release(h)
	return h.file.ReadAt(p, e.offset+off)
}

// redirect has those who read a payload find its copy. A payload that moves a
// second time is found in one step too.
func (fs *files) redirect(from, to extent) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	now := from.file.guests[from.offset]
	if now == nil {
		now = new(extent)
		if from.file.moved == nil {
			from.file.moved = map[int64]*extent{}
		}
		from.file.moved[from.offset] = now
	}
	*now = to
	if to.file.guests == nil {
		to.file.guests = map[int64]*extent{}
	}
	to.file.guests[to.offset] = now
}

// answers reports whether the disk can be read anywhere but on one page.
func (fs *files) answers(but *file, page int64) bool {
	for _, f := range fs.old {
		for _, off := range []int64{0, f.size / 2, f.size - 1} {
			if f == but && off/pageSize == page/pageSize {
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
	for i, h := range fs.open {
		if h.of == f {
			fs.open = append(slices.Delete(fs.open, i, i+1), h)
			h.users++
			return h, nil
		}
	}
	opened, err := fs.dir.Open(f.name)
	if err != nil {
		return nil, err
	}
	return fs.holdLocked(f, opened), nil
}

// hold keeps an open file: it can be read even when somebody removes its name.
func (fs *files) hold(f *file, opened vfs.File) *handle {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.holdLocked(f, opened)
}

func (fs *files) holdLocked(f *file, opened vfs.File) *handle {
	h := &handle{of: f, file: opened, users: 1}
	fs.open = append(fs.open, h)
	return h
}

func (fs *files) release(h *handle) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	h.users--
	fs.trimLocked()
}

// forget closes what is open of a file that is removed, when nobody reads it.
func (fs *files) forget(f *file) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.closed = true
	fs.trimLocked()
}

// trimLocked closes what is open for nothing.
func (fs *files) trimLocked() {
	most := len(fs.open) - maxOpen
	fs.open = slices.DeleteFunc(fs.open, func(h *handle) bool {
		if h.users > 0 || !h.of.closed && most <= 0 {
			return false
		}
		most--
		h.file.Close()
		return true
	})
}
