package crashfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/s3sink/s3sink/internal/vfs"
)

// maxName is the maximum length of a name in bytes.
const maxName = 255

// dir is a handle of a directory.
type dir struct {
	fs   *FS
	node *node
	path string // prefix of the entries' names: empty, or ends in a slash
}

func (f *FS) newDir(n *node, path string) *dir {
	d := &dir{fs: f, node: n, path: path}
	f.handles[d] = path + "."
	return d
}

// do runs one operation. It asks for the outcome, and calls apply under the lock
// if the outcome has an effect. apply's error has priority over the outcome's.
func (d *dir) do(call Call, name string, apply func() error) error {
	f := d.fs
	o := f.begin(call, d.path+name, 0)
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.admit(d, &o)
	if err == nil && o.done > 0 {
		err = apply()
	}
	if err == nil {
		err = o.err
	}
	if errors.Is(err, vfs.ErrNotDirectory) {
		return err // a RefusedError needs no PathError around it
	}
	return pathError(call, name, err)
}

// admit returns the error of an operation that cannot run, because the process has
// ended or the handle is closed. It ends the process if that is the outcome o.
func (f *FS) admit(h handle, o *outcome) error {
	switch _, open := f.handles[h]; {
	case f.hasStopped():
		return ErrStopped
	case !open:
		return fs.ErrClosed
	case errors.Is(o.err, ErrStopped):
		f.stopLocked()
	}
	return nil
}

func pathError(call Call, name string, err error) error {
	if err == nil {
		return nil
	}
	if call == CallSyncDir {
		call = CallSync
	}
	return &fs.PathError{Op: string(call), Path: name, Err: err}
}

// doEntry runs one operation on a name.
func (d *dir) doEntry(call Call, name string, apply func() error) error {
	if err := vfs.CheckName(name); err != nil {
		return pathError(call, name, err)
	}
	return d.do(call, name, func() error {
		if len(name) > maxName {
			return syscall.ENAMETOOLONG
		}
		return apply()
	})
}

func (d *dir) Create(name string) (vfs.File, error) {
	var h *file
	err := d.doEntry(CallCreate, name, func() error {
		if d.node.lookup(name) != nil {
			return syscall.EEXIST
		}
		if d.fs.freeLocked() == 0 {
			return syscall.ENOSPC
		}
		n := &node{}
		d.set(name, n)
		h = d.fs.newFile(n, d.path, name, false)
		return nil
	})
	return opened(h, err)
}

// opened returns a new handle. It closes the handle if the operation had its effect
// and still returned an error.
func opened(h *file, err error) (vfs.File, error) {
	if err == nil {
		return h, nil
	}
	if h != nil {
		h.release()
	}
	return nil, err
}

func (d *dir) set(name string, to *node) {
	d.fs.seq++
	d.node.set(name, to, d.fs.seq)
}

func (d *dir) Open(name string) (vfs.File, error) {
	var h *file
	err := d.doEntry(CallOpen, name, func() error {
		n := d.node.lookup(name)
		switch {
		case n == nil:
			return syscall.ENOENT
		case n.mode != 0:
			return vfs.ErrNotRegular
		}
		h = d.fs.newFile(n, d.path, name, true)
		return nil
	})
	return opened(h, err)
}

func (d *dir) Remove(name string) error {
	return d.doEntry(CallRemove, name, func() error {
		n := d.node.lookup(name)
		switch {
		case n == nil:
			return syscall.ENOENT
		case n.names != nil:
			return vfs.ErrNotRegular
		}
		d.set(name, nil)
		return nil
	})
}

func (d *dir) List() ([]vfs.Entry, error) {
	var list []vfs.Entry
	err := d.do(CallList, ".", func() error {
		for _, name := range d.node.sorted() {
			if n := d.node.lookup(name); n != nil {
				list = append(list, vfs.Entry{Name: name, Type: n.mode, Size: int64(len(n.data))})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (d *dir) Sync() error {
	d.fs.mu.Lock()
	seq := d.fs.seq // this Sync does not cover changes during the call
	d.fs.mu.Unlock()
	err := d.do(CallSyncDir, ".", func() error {
		for _, removed := range d.node.syncNames(seq) {
			d.fs.recycle(removed.data)
		}
		return nil
	})
	if err != nil {
		d.failedSync(seq)
	}
	return err
}

// failedSync marks the names of a failed Sync as lost, if ForgetNames was called.
func (d *dir) failedSync(seq uint64) {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if d.fs.forget && !d.fs.hasStopped() {
		d.node.forgetNames(seq)
	}
}

func (d *dir) Sub(name string) (vfs.Dir, error) {
	var sub *dir
	err := d.doEntry(CallMkdir, name, func() error {
		n := d.node.lookup(name)
		switch {
		case n == nil:
			n = newDirectory()
			d.set(name, n)
		case n.names == nil:
			return &vfs.RefusedError{Path: name, Reason: vfs.ErrNotDirectory, Detail: "the entry is a file"}
		}
		sub = d.fs.newDir(n, d.path+name+"/")
		return nil
	})
	if err == nil {
		return sub, nil
	}
	if sub != nil {
		sub.release()
	}
	return nil, err
}

func (d *dir) Lock(ctx context.Context) error {
	var held <-chan struct{}
	try := func() error {
		if d.node.holder == d {
			return errors.New("this Dir has the lock already")
		}
		if held = d.node.free; d.node.holder != nil {
			return nil
		}
		if d.node.lookup(vfs.LockName) == nil {
			d.set(vfs.LockName, &node{})
		}
		d.node.holder, d.node.free, held = d, make(chan struct{}), nil
		return nil
	}
	err := d.do(CallLock, vfs.LockName, try)
	for err == nil && held != nil {
		select {
		case <-held:
			err = d.retryLock(try)
		case <-d.fs.stopped:
			err = pathError(CallLock, vfs.LockName, ErrStopped)
		case <-ctx.Done():
			err = pathError(CallLock, vfs.LockName, fmt.Errorf("%w: %w", vfs.ErrLocked, context.Cause(ctx)))
		}
	}
	return err
}

// retryLock tries to lock again after the holder released the lock.
func (d *dir) retryLock(try func() error) error {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	err := d.fs.admit(d, &outcome{})
	if err == nil {
		err = try()
	}
	return pathError(CallLock, vfs.LockName, err)
}

// Note works without the lock, unlike Note of a real directory.
func (d *dir) Note() (note []byte, err error) {
	err = d.do(CallNote, vfs.LockName, func() error {
		note = d.fs.note
		return nil
	})
	return note, err
}

// SetNote stores the note on disk at once, or fails.
func (d *dir) SetNote(note []byte) error {
	return d.do(CallSetNote, vfs.LockName, func() error {
		d.fs.note = slices.Clone(note)
		return nil
	})
}

func (d *dir) FileSystem() vfs.FileSystem { return vfs.FileSystem{Name: "crashfs"} }

// Free does not count as an operation: its result only decides when a writer stops.
func (d *dir) Free() (int64, error) {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	switch {
	case d.fs.hasStopped():
		return 0, pathError("statfs", ".", ErrStopped)
	case d.fs.capacity == 0:
		return 0, pathError("statfs", ".", errors.ErrUnsupported)
	}
	return d.fs.freeLocked(), nil
}

// Close closes the handle even when it is told to fail.
func (d *dir) Close() error {
	err := d.do(CallClose, ".", func() error { return nil })
	d.release()
	return err
}

func (d *dir) release() {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	delete(d.fs.handles, d)
	if d.node.holder == d {
		d.node.holder = nil
		close(d.node.free)
	}
}
