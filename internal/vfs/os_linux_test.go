package vfs

import (
	"errors"
	"testing"
)

// Given the magic number of a network file system, when the directory is checked,
// then it is refused unless AllowNetwork is set.
func TestCheckFileSystem_Network(t *testing.T) {
	t.Parallel()
	for magic, want := range map[uint32]error{
		0xef53: nil, 0x58465342: nil, 0x01021994: nil, 0x12345678: nil,
		0x6969: ErrNetwork, 0xff534d42: ErrNetwork, 0xfe534d42: ErrNetwork, 0x00c36400: ErrNetwork,
	} {
		system := byMagic(magic)
		if system.Name == "" || system.Network && system.Volatile {
			t.Errorf("%#x: %+v", magic, system)
		}
		err := checkFileSystem("/spool", system, Options{})
		if r := (*RefusedError)(nil); !errors.Is(err, want) || want != nil && !errors.As(err, &r) {
			t.Errorf("%#x (%s) = %v, want %v", magic, system.Name, err, want)
		}
		if err := checkFileSystem("/spool", system, Options{AllowNetwork: true}); err != nil {
			t.Errorf("%#x, allowed: %v", magic, err)
		}
	}
}
