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

// peakOf returns the peak resident bytes of a process that has ended.
func peakOf(p *os.ProcessState) int64 {
	return p.SysUsage().(*syscall.Rusage).Maxrss << 10
}

// resident returns the resident bytes of this process.
func resident() int64 {
	pages, _ := strconv.ParseInt(field("/proc/self/statm", 1), 10, 64)
	return pages * int64(os.Getpagesize())
}

// written returns the number of bytes that this process has passed to write(2)
// and similar calls.
func written() int64 {
	text, _ := os.ReadFile("/proc/self/io")
	_, rest, _ := bytes.Cut(text, []byte("wchar: "))
	digits, _, _ := bytes.Cut(rest, []byte("\n"))
	n, _ := strconv.ParseInt(string(digits), 10, 64)
	return n
}

// processorTime returns the CPU time of this process on all cores.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// openFiles returns the number of open file descriptors of this process, plus
// one for the listing itself.
func openFiles() int {
	open, _ := os.ReadDir("/proc/self/fd")
	return len(open)
}

func dataSync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// dropCache drops the spool in dir from the page cache. wholeMachine drops the
// rest of the page cache too, if this process is root. It returns a description
// of the result for the table.
func dropCache(dir string, wholeMachine bool) (string, error) {
	var cached, total int64
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		return "", err
	}
	how := "dropped with posix_fadvise"
	if wholeMachine && os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) == nil {
		how += " and drop_caches"
	}
	for _, name := range files {
		inCache, size, err := dropFileCache(name)
		if err != nil {
			return "", err
		}
		cached, total = cached+inCache, total+size
	}
	return fmt.Sprintf("%s (%.0f %% of the spool remained)", how, 100*float64(cached)/float64(max(total, 1))), nil
}

// dropFileCache drops a file from the page cache. It returns how many of its
// bytes the kernel kept in the cache, and its size.
func dropFileCache(name string) (cached, size int64, err error) {
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
	defer func() { _ = unix.Munmap(m) }() // fails only for an address that is not mapped
	page := os.Getpagesize()
	residency := make([]byte, (len(m)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&residency[0]))); errno != 0 {
		return 0, 0, fmt.Errorf("mincore: %w", errno)
	}
	for _, b := range residency {
		cached += int64(b&1) * int64(page)
	}
	return cached, info.Size(), nil
}

// processor returns the model name of the CPU.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := bytes.Cut(text, []byte("model name"))
	_, rest, _ = bytes.Cut(rest, []byte(": "))
	name, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(name)
}

// load returns the load average over one minute.
func load() string { return field("/proc/loadavg", 0) }

// kernel returns the kernel version without the suffix of a distribution.
func kernel() string {
	version, _, _ := strings.Cut(field("/proc/sys/kernel/osrelease", 0), "-")
	return "Linux " + version
}

// field returns the n-th word of a file, from 0.
func field(file string, n int) string {
	text, _ := os.ReadFile(file)
	if words := bytes.Fields(text); len(words) > n {
		return string(words[n])
	}
	return ""
}

// fileSystem returns the type of the file system of a directory, and whether it
// keeps files in memory.
func fileSystem(dir string) (name string, inMemory bool) {
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
