package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peakOf returns the most bytes that a process which has ended had resident.
func peakOf(p *os.ProcessState) int64 {
	return p.SysUsage().(*syscall.Rusage).Maxrss << 10
}

// resident returns how many bytes this process has resident now.
func resident() int64 {
	pages, _ := strconv.ParseInt(field("/proc/self/statm", 1), 10, 64)
	return pages * int64(os.Getpagesize())
}

// written returns how many bytes this process has passed to write.
func written() int64 {
	text, _ := os.ReadFile("/proc/self/io")
	_, rest, _ := bytes.Cut(text, []byte("wchar: "))
	digits, _, _ := bytes.Cut(rest, []byte("\n"))
	n, _ := strconv.ParseInt(string(digits), 10, 64)
	return n
}

// processorTime returns how long this process has run on all cores.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func openFiles() int {
	open, _ := os.ReadDir("/proc/self/fd")
	return len(open)
}

func dataSync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// forget drops a directory's files from the page cache, everything of the
// machine's if it may, and says what that has come to.
func forget(dir string, everything bool) (string, error) {
	var left, all int64
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		return "", err
	}
	how := "posix_fadvise"
	if everything && os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) == nil {
		how += " and drop_caches"
	}
	for _, name := range files {
		in, size, err := forgetFile(name)
		if err != nil {
			return "", err
		}
		left, all = left+in, all+size
	}
	return fmt.Sprintf("%s (%.0f %% stayed in memory)", how, 100*float64(left)/float64(max(all, 1))), nil
}

// forgetFile returns how many of a file's bytes are in memory all the same.
func forgetFile(name string) (left, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, 0, err
	}
	fd := int(f.Fd())
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, 0, fmt.Errorf("fadvise: %w", err)
	}
	m, err := unix.Mmap(fd, 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, 0, fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(m)
	page := os.Getpagesize()
	in := make([]byte, (len(m)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
		return 0, 0, fmt.Errorf("mincore: %w", errno)
	}
	for _, b := range in {
		left += int64(b&1) * int64(page)
	}
	return left, info.Size(), nil
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := bytes.Cut(text, []byte("model name"))
	_, rest, _ = bytes.Cut(rest, []byte(": "))
	name, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(name)
}

// load is how many processes wanted to run, on average over a minute.
func load() string { return field("/proc/loadavg", 0) }

// kernel leaves out what a distribution or a host appends to the version.
func kernel() string {
	version, _, _ := strings.Cut(field("/proc/sys/kernel/osrelease", 0), "-")
	return "Linux " + version
}

// field returns one of the words of a file.
func field(file string, n int) string {
	text, _ := os.ReadFile(file)
	if words := bytes.Fields(text); len(words) > n {
		return string(words[n])
	}
	return ""
}

// fileSystem says what a directory is on, and whether that is memory.
func fileSystem(dir string) (name string, memory bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "an unknown file system", false
	}
	switch magic := uint32(st.Type); magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", false
	case unix.XFS_SUPER_MAGIC:
		return "XFS", false
	case unix.BTRFS_SUPER_MAGIC:
		return "Btrfs", false
	case unix.TMPFS_MAGIC:
		return "tmpfs", true
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay", false
	default:
		return fmt.Sprintf("file system %#x", magic), false
	}
}
