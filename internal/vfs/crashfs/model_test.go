package crashfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// model implements the rules of the package in a second, simpler way: each byte
// has a fate, and each name has a list of possible files.
type model struct {
	forget bool
	names  map[string]*modelName
	bodies int
}

type modelName struct {
	may   []*body // possible files after a power cut; nil: the name does not exist
	now   *body
	dirty bool // the next Sync writes now
}

// body is one file, whatever its name.
type body struct {
	data  []byte
	fate  []byte // of each byte: kept, pending or lost
	zeros int    // number of reserved zeros at the end
	least int    // end of the last byte that was ever kept
}

const (
	kept    = 'k' // on disk for certain
	pending = 'p'
	lost    = 'l' // its Sync failed
)

// more returns bytes that differ from most other places and files.
func more(id, from, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + (id*37+(from+i)*11+(from+i)/251)%255) // never 0
	}
	return p
}

func (b *body) turn(to byte) {
	for i := range b.fate {
		if b.fate[i] == pending {
			b.fate[i] = to
		}
	}
	b.least = max(b.least, bytes.LastIndexByte(b.fate, kept)+1)
}

func (b *body) append(p []byte) {
	for _, c := range p {
		if b.zeros == 0 {
			b.reserve(1)
		}
		at := len(b.data) - b.zeros
		b.data[at], b.fate[at] = c, pending
		b.zeros--
	}
}

func (b *body) reserve(n int) {
	b.data = append(b.data, make([]byte, n)...)
	b.fate = append(b.fate, bytes.Repeat([]byte{pending}, n)...)
	b.zeros += n
}

// allows returns nil if data is a possible content of the file after a power cut.
func (b *body) allows(data []byte) error {
	if len(data) < b.least || len(data) > len(b.fate) {
		return fmt.Errorf("%d bytes, want %d to %d", len(data), b.least, len(b.fate))
	}
	for i := range data {
		if b.fate[i] == kept && data[i] != b.data[i] {
			return fmt.Errorf("synced byte %d is %#x, want %#x", i, data[i], b.data[i])
		}
	}
	return nil
}

func (m *model) set(name string, to *body) {
	n := m.names[name]
	if n == nil {
		n = &modelName{may: []*body{nil}}
		m.names[name] = n
	}
	n.now, n.dirty = to, true
	n.may = append(n.may, to)
}

func (m *model) sync(ok bool) {
	for _, n := range m.names {
		switch {
		case ok && n.dirty:
			n.may, n.dirty = []*body{n.now}, false
		case !ok && m.forget:
			n.dirty = false
		}
	}
}

// check compares a disk after a power cut with the possible disks, and returns the
// model of that disk.
func (m *model) check(disk *crashfs.FS) (*model, error) {
	next := &model{forget: m.forget, names: make(map[string]*modelName), bodies: m.bodies}
	for name, n := range m.names {
		data, there := disk.ReadFile(name)
		if err := n.allows(data, there); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		if there {
			b := &body{data: data, fate: bytes.Repeat([]byte{kept}, len(data)), least: len(data)}
			next.names[name] = &modelName{may: []*body{b}, now: b}
		}
	}
	for _, e := range listed(disk) {
		if next.names[e.Name] == nil {
			return nil, fmt.Errorf("%q was never there", e.Name)
		}
	}
	return next, nil
}

func (n *modelName) allows(data []byte, there bool) error {
	err := fmt.Errorf("there: %t, may be %d files", there, len(n.may))
	for _, b := range n.may {
		if b == nil && !there {
			return nil
		}
		if b != nil && there {
			illegal := b.allows(data)
			if illegal == nil {
				return nil
			}
			err = fmt.Errorf("%w; %w", err, illegal)
		}
	}
	return err
}

func listed(disk *crashfs.FS) []vfs.Entry {
	d := disk.Dir()
	defer d.Close()
	list, err := d.List()
	if err != nil {
		panic(err)
	}
	return list
}

// run runs a program of two bytes per operation, and then crashes.
func run(program []byte, seed uint64) error {
	m := &model{forget: seed%2 == 1, names: make(map[string]*modelName)}
	disk := crashfs.New(seed)
	if m.forget {
		disk.ForgetNames()
	}
	r := &runner{m: m, disk: disk, dir: disk.Dir()}
	for len(program) >= 2 {
		if err := r.step(program[0], program[1]); err != nil {
			return fmt.Errorf("%w\n%v", err, r.disk)
		}
		program = program[2:]
	}
	for cut := range uint64(8) {
		if _, err := r.m.check(r.disk.Crash(rand.New(rand.NewPCG(seed, cut)))); err != nil {
			return fmt.Errorf("cut %d: %w\n%v", cut, err, r.disk)
		}
	}
	return nil
}

type runner struct {
	m     *model
	disk  *crashfs.FS
	dir   vfs.Dir
	files [3]vfs.File // last created or opened handles of a, b and c
	own   [3]*body    // the bodies of files
	old   [3]bool     // whether the file was opened, not created
}

func (r *runner) step(op, arg byte) error {
	i := int(op>>4) % len(r.files)
	name := string(rune('a' + i))
	f := r.files[i]
	switch op % 16 {
	case 0, 1:
		return r.create(i, name)
	case 2, 3, 4:
		if f != nil {
			return r.append(i, int(arg)*13, op%16 == 4)
		}
	case 5, 6:
		if f != nil {
			err := f.Sync()
			r.own[i].turn(kept)
			return err
		}
	case 7:
		if f != nil {
			r.disk.FailAt(r.disk.Ops(), crashfs.Kinds()[int(arg)%5])
			r.own[i].turn(lost)
			return want(f.Sync() != nil, "Sync did not fail")
		}
	case 8:
		r.m.sync(true)
		return r.dir.Sync()
	case 9:
		r.disk.FailAt(r.disk.Ops(), crashfs.EIO)
		r.m.sync(false)
		return want(r.dir.Sync() != nil, "Sync did not fail")
	case 10, 11:
		return r.remove(name)
	case 12:
		r.restart(r.disk.Kill())
	case 13:
		disk := r.disk.Crash(seeded(uint64(arg)))
		m, err := r.m.check(disk)
		if err != nil {
			return err
		}
		r.m = m
		r.restart(disk)
	case 14:
		return r.open(i, name)
	case 15:
		if f != nil {
			return r.reserve(i, 1+int(arg)*13, arg%4 == 0)
		}
	}
	return r.visible(name)
}

func (r *runner) create(i int, name string) error {
	f, err := r.dir.Create(name)
	if n := r.m.names[name]; n != nil && n.now != nil {
		return want(err != nil, "Create of a file that exists")
	}
	if err != nil {
		return err
	}
	r.m.bodies++
	r.files[i], r.own[i], r.old[i] = f, &body{}, false
	r.m.set(name, r.own[i])
	return nil
}

func (r *runner) open(i int, name string) error {
	f, err := r.dir.Open(name)
	n := r.m.names[name]
	if n == nil || n.now == nil {
		return want(err != nil, "Open of a file that does not exist")
	}
	if err != nil {
		return err
	}
	r.files[i], r.own[i], r.old[i] = f, n.now, true
	return nil
}

func (r *runner) append(i, length int, short bool) error {
	b := r.own[i]
	if short && !r.old[i] {
		r.disk.FailAt(r.disk.Ops(), crashfs.Short)
	}
	p := more(r.m.bodies, len(b.data)-b.zeros, length)
	n, err := r.files[i].Append(p)
	b.append(p[:n])
	if r.old[i] {
		return want(err != nil && n == 0, "Append to an old file = %d, %v", n, err)
	}
	return want(short == (err != nil) && (err != nil || n == length), "Append = %d, %v", n, err)
}

func (r *runner) reserve(i, length int, short bool) error {
	b := r.own[i]
	if short && !r.old[i] {
		r.disk.FailAt(r.disk.Ops(), crashfs.Short)
	}
	err := r.files[i].Reserve(int64(length))
	size, failed := r.files[i].Size()
	n := int(size) - len(b.data)
	switch {
	case failed != nil || n < 0 || n > length:
		return fmt.Errorf("%d zeros more after Reserve of %d, %v", n, length, failed)
	case r.old[i]:
		return want(err != nil && n == 0, "Reserve in an old file = %d, %v", n, err)
	}
	b.reserve(n)
	return want(short == (err != nil) && (err != nil || n == length), "Reserve = %d, %v", n, err)
}

func (r *runner) remove(name string) error {
	err := r.dir.Remove(name)
	if n := r.m.names[name]; n == nil || n.now == nil {
		return want(err != nil, "Remove of a file that does not exist")
	}
	r.m.set(name, nil)
	return err
}

// restart continues as the next process.
func (r *runner) restart(disk *crashfs.FS) {
	r.disk, r.dir = disk, disk.Dir()
	r.files, r.own = [3]vfs.File{}, [3]*body{}
}

// visible compares the file that the process sees with the model.
func (r *runner) visible(name string) error {
	got, there := r.disk.ReadFile(name)
	n := r.m.names[name]
	if n == nil || n.now == nil {
		return want(!there, "%q is there", name)
	}
	b := n.now
	return want(there && bytes.Equal(got, b.data), "%q is not what was written", name)
}

func want(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// Given random programs, when they run and crash, then the model allows each disk.
func TestModel_RandomHistories(t *testing.T) {
	t.Parallel()
	histories := 3000
	if testing.Short() {
		histories = 300
	}
	for seed := range uint64(histories) {
		rng := seeded(seed)
		program := make([]byte, 2*rng.IntN(60))
		for i := range program {
			program[i] = byte(rng.Uint32())
		}
		if err := run(program, seed); err != nil {
			t.Fatalf("seed %d, program %q: %v", seed, program, err)
		}
	}
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte("\x00\x00\x02\x50\x05\x00\x08\x00\x02\x40\x07\x00\x02\x20\x06\x00\x0c\x00"), uint64(1))
	f.Add([]byte("\x00\x00\x0f\x51\x06\x00\x08\x00\x02\x20\x07\x00\x02\x10\x05\x00\x0f\x44\x04\x50"), uint64(2))
	f.Add([]byte("\x00\x00\x0a\x00\x00\x00\x09\x00\x0a\x00\x08\x00\x00\x00"), uint64(3))
	f.Fuzz(func(t *testing.T, program []byte, seed uint64) {
		if err := run(program[:min(len(program), 400)], seed); err != nil {
			t.Fatal(err)
		}
	})
}
