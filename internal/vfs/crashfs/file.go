package crashfs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"syscall"

	"github.com/s3sink/s3sink/internal/vfs"
)

// file is a handle of a file.
type file struct {
	fs         *FS
	node       *node
	path, name string
	readOnly   bool
}

var _ vfs.File = (*file)(nil)

func (f *FS) newFile(n *node, path, name string, readOnly bool) *file {
	h := &file{fs: f, node: n, path: path, name: name, readOnly: readOnly}
	f.handles[h] = path + name
	return h
}

func (h *file) release() {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	delete(h.fs.handles, h)
}

// do runs one operation, as [dir.do] does. apply gets the number of bytes to write.
func (h *file) do(call Call, length int, apply func(done int) error) error {
	o := h.fs.begin(call, h.path+h.name, length)
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.fs.admit(h, &o)
	if err == nil && o.done > 0 {
		err = apply(o.done)
	}
	if err == nil {
		err = o.err
	}
	if errors.Is(err, io.EOF) {
		return err
	}
	return pathError(call, h.name, err)
}

func (h *file) Append(p []byte) (n int, err error) {
	if h.readOnly {
		return 0, pathError(CallAppend, h.name, fs.ErrPermission)
	}
	err = h.do(CallAppend, len(p), func(done int) error {
		n = min(done, len(p))
		room := h.fs.freeLocked()
		if room < math.MaxInt64 {
			room += h.node.reserved
		}
		whole := int64(n) <= room
		n = int(min(int64(n), room))
		h.node.append(p[:n])
		if !whole {
			return syscall.ENOSPC
		}
		return nil
	})
	return n, err
}

func (h *file) Reserve(n int64) error {
	switch {
	case h.readOnly:
		return pathError(CallReserve, h.name, fs.ErrPermission)
	case n <= 0:
		return pathError(CallReserve, h.name, fs.ErrInvalid)
	}
	return h.do(CallReserve, int(n), func(done int) error {
		room := h.fs.freeLocked()
		h.node.reserve(int(min(int64(done), n, room)))
		if n > room {
			return syscall.ENOSPC
		}
		return nil
	})
}

func (h *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = h.do(CallRead, len(p), func(int) error {
		switch {
		case off < 0:
			return fs.ErrInvalid
		case len(p) == 0:
			return nil
		}
		if off < int64(len(h.node.data)) {
			n = copy(p, h.node.data[off:])
		}
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (h *file) Sync() error {
	h.fs.mu.Lock()
	begin := h.node.extent() // this Sync does not cover bytes appended during the call
	h.fs.mu.Unlock()
	err := h.do(CallSync, 0, func(int) error {
		h.node.endSync(begin, durable)
		return nil
	})
	if err != nil {
		h.failedSync(begin)
	}
	return err
}

// failedSync marks unwritten bytes as clean, as Linux does.
func (h *file) failedSync(begin extent) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if _, open := h.fs.handles[h]; open && !h.fs.hasStopped() {
		h.node.endSync(begin, doubtful)
	}
}

func (h *file) Size() (size int64, err error) {
	err = h.do(CallStat, 0, func(int) error {
		size = int64(len(h.node.data))
		return nil
	})
	return size, err
}

// Close closes the handle even when it is told to fail.
func (h *file) Close() error {
	err := h.do(CallClose, 0, func(int) error { return nil })
	h.release()
	return err
}
