package contract

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel kill the process if the tests die before they can
// end it.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
