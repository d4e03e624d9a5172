package vfs

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// Holder describes the process that holds a directory's lock. Its zero value is an
// unknown process. The holder writes its Holder to the LOCK file, so that other
// processes can report it. The kernel lists the holders of a flock only in
// /proc/locks. That list omits processes of other containers, and on btrfs and
// overlay it has other device numbers than stat.
//
// In a container the process id is often 1, so it means little alone. The host
// name of a pod is the pod's name.
type Holder struct {
	PID       int       `json:"pid"`
	Host      string    `json:"host"`
	Namespace string    `json:"pid_namespace,omitempty"` // the PID namespace, on Linux
	Since     time.Time `json:"since"`
}

// String describes the holder as seen from this process.
func (h Holder) String() string {
	self := thisProcess()
	switch here := h.Host == self.Host; {
	case h.PID == 0:
		return "another process"
	case here && h.Namespace == self.Namespace && h.PID == self.PID:
		return fmt.Sprintf("another sink of this process (pid %d)", h.PID)
	case here && h.Namespace == self.Namespace:
		return fmt.Sprintf("another process (pid %d)", h.PID)
	case here: // a container with the host's network has the host's name
		return fmt.Sprintf("a process of another container on this host (pid %d there)", h.PID)
	}
	return fmt.Sprintf("a process on host %s (pid %d there)", h.Host, h.PID)
}

func thisProcess() Holder {
	host, _ := os.Hostname()
	return Holder{PID: os.Getpid(), Host: host, Namespace: pidNamespace()}
}

// The record begins after the file's first byte: on Windows only the holder of
// the lock can read that byte.
const (
	holderOffset = 1
	maxHolder    = 1 << 10
)

// writeHolder records this process in the LOCK file, which it has locked. It
// ignores errors: the record is only used in messages, and the disk may be full.
func writeHolder(lock *os.File) {
	self := thisProcess()
	self.Since = time.Now().UTC().Truncate(time.Second)
	if record, err := json.Marshal(self); err == nil && len(record) <= maxHolder {
		_, _ = lock.WriteAt(fmt.Appendf(nil, "\n%-*s", maxHolder, record), 0)
	}
}

// clearHolder removes the record, and keeps the note after it. It ignores errors:
// a record of an ended process is not reported.
func clearHolder(lock *os.File) {
	if info, err := lock.Stat(); err == nil && info.Size() <= noteOffset {
		_ = lock.Truncate(0)
		return
	}
	_, _ = lock.WriteAt(fmt.Appendf(nil, "\n%-*s", maxHolder, ""), 0)
}

// holder reads the record in the LOCK file. It ignores the record of a process
// that no longer runs: a killed holder leaves its record behind, and the next
// holder may not have written its own yet.
func (d *dir) holder() Holder {
	f, err := d.openRegular(LockName, openFlags)
	if err != nil {
		return Holder{}
	}
	defer f.Close()
	var h Holder
	record, err := io.ReadAll(io.NewSectionReader(f, holderOffset, maxHolder))
	if err != nil || json.Unmarshal(record, &h) != nil {
		return Holder{}
	}
	if self := thisProcess(); h.Host == self.Host && h.Namespace == self.Namespace && !isRunning(h.PID) {
		return Holder{}
	}
	return h
}
