package contract

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends the process when the tests do not live to end it.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
