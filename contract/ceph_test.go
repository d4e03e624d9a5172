package contract

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/s3sink/s3sink/policy"
)

// cephVersion is the version in Debian 12. The list states the deviations of this
// version only.
const cephVersion = "16.2.15"

// cephPackages are the Debian packages that contain cephPrograms.
const cephPackages = "radosgw ceph-mon ceph-osd"

var cephPrograms = []string{"radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "monmaptool", "osdmaptool"}

// cephMissing returns the reason why Ceph cannot be started here, or "".
var cephMissing = sync.OnceValue(func() string {
	for _, program := range cephPrograms {
		if _, err := exec.LookPath(program); err != nil {
			return "there is no program " + program + "; Debian's packages for it are " + cephPackages
		}
	}
	out, err := runTool("radosgw --version", "radosgw", cephEnvironment(""), nil, "--version")
	if err != nil {
		return err.Error()
	}
	if fields := strings.Fields(string(out)); len(fields) < 3 || fields[2] != cephVersion {
		return fmt.Sprintf("the list is for version %s, not %q", cephVersion, bytes.TrimSpace(out))
	}
	return ""
})

// cephEnvironment returns the environment of this process with CEPH_CONF as the
// only variable of Ceph.
func cephEnvironment(conf string) []string {
	return append(environmentWithout("CEPH_"), "CEPH_CONF="+conf)
}

// cephConf is the configuration of all daemons and tools. The monitor and the
// store have no authentication, and listen on the loopback interface only. The
// store keeps one copy of each object, in memory.
var cephConf = template.Must(template.New("ceph.conf").Parse(`[global]
fsid = {{.FSID}}
mon host = [v2:{{.Monitor}}]
ms bind msgr1 = false
ms mon client mode = crc
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
log file = /dev/null
err to stderr = true
run dir = {{.Dir}}
admin socket =

mon data = {{.Dir}}/mon
mon cluster log file = /dev/null
mon data avail crit = 0
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.02
paxos min wait = 0.01

osd data = {{.Dir}}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off

rgw data = {{.Dir}}/rgw
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = {{.KMSKey}}={{.KMSSecret}}
rgw s3 auth use sts = true
rgw sts key = {{.STSKey}}
rgw run sync thread = false
`))

// cephKey looks like the id of a KMS key; Ceph takes any name.
const cephKey = "7e2a3b4f-1d5c-4b6e-9fa0-2b3c4d5e6f70"

// cephCluster is a running monitor and a store, without a gateway.
type cephCluster struct {
	env   []string
	owner keys
}

var startedCeph = sync.OnceValues(func() (*cephCluster, error) { return launch("http", startCeph) })

func startCeph(at place) (*cephCluster, error) {
	id := make([]byte, 16)
	rand.Read(id) // never fails
	fsid := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	var text bytes.Buffer
	kms := make([]byte, 32)
	rand.Read(kms) // never fails
	if err := cephConf.Execute(&text, map[string]string{
		"FSID": fsid, "Monitor": at.address, "Dir": at.dir,
		"KMSKey": cephKey, "KMSSecret": base64.StdEncoding.EncodeToString(kms),
		"STSKey": rand.Text()[:16],
	}); err != nil {
		return nil, err
	}
	conf := filepath.Join(at.dir, "ceph.conf")
	c := &cephCluster{env: cephEnvironment(conf), owner: keys{id: "AKIAOWNER00000000000", secret: rand.Text()}}
	monmap, osdmap := filepath.Join(at.dir, "monmap"), filepath.Join(at.dir, "osdmap")
	err := errors.Join(
		os.WriteFile(conf, text.Bytes(), 0o600),
		os.Mkdir(filepath.Join(at.dir, "mon"), 0o700),
		os.Mkdir(filepath.Join(at.dir, "osd"), 0o700))
	if err != nil {
		return nil, err
	}
	// The initial OSD map contains the store, so no request has to add it.
	for _, command := range [][]string{
		{"monmaptool", "--create", "--fsid", fsid, "--addv", "a", "[v2:" + at.address + "]", "--set-min-mon-release", "16", monmap},
		{"osdmaptool", "--createsimple", "1", osdmap},
		{"ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--osdmap", osdmap},
	} {
		if err := c.run(command...); err != nil {
			return nil, err
		}
	}
	if _, err := start("ceph-mon", "ceph-mon", c.env, "-f", "-i", "a"); err != nil {
		return nil, err
	}
	if err := c.run("ceph-osd", "--mkfs", "-i", "0"); err != nil {
		return nil, err
	}
	if _, err := start("ceph-osd", "ceph-osd", c.env, "-f", "-i", "0"); err != nil {
		return nil, err
	}
	// The command returns after the monitor and the store have made the first
	// pools.
	return c, c.addUser("owner", c.owner, "--caps", "user-policy=*")
}

// run runs one of the tools of Ceph.
func (c *cephCluster) run(command ...string) error {
	_, err := runTool(strings.Join(command[:2], " "), command[0], c.env, nil, command[1:]...)
	return err
}

// addUser adds a user of the account. Ceph calls the account a tenant.
func (c *cephCluster) addUser(name string, k keys, more ...string) error {
	return c.run(append([]string{"radosgw-admin", "user", "create", "--tenant", account, "--uid", name, "--display-name", name,
		"--access-key", k.id, "--secret-key", k.secret}, more...)...)
}

// addRole adds a role of the account.
func (c *cephCluster) addRole(name, trust, permissions string) error {
	return errors.Join(
		c.run("radosgw-admin", "role", "create", "--tenant", account, "--role-name", name,
			"--assume-role-policy-doc", trust),
		c.run("radosgw-admin", "role-policy", "put", "--tenant", account, "--role-name", name,
			"--policy-name", "permissions", "--policy-doc", permissions))
}

// radosGateway is a running radosgw, which is both the S3 and the STS of Ceph.
type radosGateway struct {
	place
	cluster *cephCluster
}

var (
	radosGateways = eachScheme(func(scheme string) (*radosGateway, error) { return startRadosGateway(scheme) })

	// shortSTS starts a gateway that allows sessions shorter than 15 minutes.
	shortSTS = sync.OnceValues(func() (*radosGateway, error) {
		return startRadosGateway("http", "--rgw-sts-min-session-duration", "1")
	})
)

func startRadosGateway(scheme string, args ...string) (*radosGateway, error) {
	cluster, err := startedCeph()
	if err != nil {
		return nil, err
	}
	return launch(scheme, func(at place) (*radosGateway, error) {
		frontend := "beast endpoint=" + at.address
		if scheme == "https" {
			frontend = "beast ssl_endpoint=" + at.address + " ssl_certificate=" + at.id.cert + " ssl_private_key=" + at.id.key
		}
		_, err := at.serve("/", "radosgw", "radosgw", cluster.env,
			append([]string{"-f", "-n", "client.admin", "--rgw-data", at.dir, "--rgw-frontends", frontend}, args...)...)
		return &radosGateway{at, cluster}, err
	})
}

func openCeph(t *testing.T, scheme string) *site {
	t.Helper()
	g, err := radosGateways[scheme]()
	if err != nil {
		t.Fatal(err)
	}
	role := "sink-" + strings.ToLower(rand.Text())
	s := &site{
		column: ceph, scheme: scheme,
		url: g.url, stsURL: g.url, sinkSTS: g.url, client: g.client,
		region:     region,
		owner:      g.cluster.owner,
		kmsKey:     cephKey,
		role:       roleARN + role,
		externalID: external,
		acl:        "bucket-owner-full-control",
	}
	s.addBucket = s.createNamed
	s.addUser = func(k keys, arn string) error { return g.cluster.addUser(strings.TrimPrefix(arn, userARN), k) }
	s.allow = func(t *testing.T, n *newcomer, p policy.Set) error {
		return s.putUserPolicy(t, n.arn, document(p, policy.Permissions).String())
	}
	s.kmsBucket = s.createKMS
	s.bucket = s.create(t)

	limited := mayPut(s.bucket, "allowed")
	user := func() (keys, string) {
		t.Helper()
		k := keys{id: "AKIA" + rand.Text()[:16], secret: rand.Text()}
		arn := userARN + strings.ToLower(k.id)
		if err := s.addUser(k, arn); err != nil {
			t.Fatal(err)
		}
		return k, arn
	}
	var writerARN, callerARN string
	s.writer, writerARN = user()
	s.caller, callerARN = user()
	s.stranger, _ = user()
	if err := s.putUserPolicy(t, writerARN, limited.String()); err != nil {
		t.Fatal(err)
	}
	trust := iamPolicy{"2012-10-17", []statement{{
		Effect:    "Allow",
		Principal: map[string][]string{"AWS": {callerARN, s.role}},
		Action:    []string{"sts:AssumeRole"},
	}}}
	if err := g.cluster.addRole(role, trust.String(), limited.String()); err != nil {
		t.Fatal(err)
	}
	s.session = func(t *testing.T, life time.Duration) keys {
		t.Helper()
		from := *s
		if life < 15*time.Minute {
			short, err := shortSTS()
			if err != nil {
				t.Fatal(err)
			}
			from.stsURL, from.client = short.url, short.client
		}
		return from.assumeRole(t, "DurationSeconds", fmt.Sprint(int(life.Seconds()))).session(t)
	}
	return s
}

// Given a role whose trust policy has a condition on the external id, then
// AssumeRole with the right id is refused, as docs/contract.md says.
func TestCeph_RoleThatAsksForAnExternalID(t *testing.T) {
	t.Parallel()
	if cephMissing() != "" {
		skip(t, ceph+": "+cephMissing())
	}
	s := openCeph(t, "http")
	cluster, err := startedCeph()
	if err != nil {
		t.Fatal(err)
	}
	name := "asks-" + strings.ToLower(rand.Text())
	for _, condition := range []string{"", `,"Condition":{"StringEquals":{"sts:ExternalId":"` + external + `"}}`} {
		trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["sts:AssumeRole"]` + condition + `}]}`
		want := "200"
		if condition != "" {
			name, want = name+"-id", "403 AccessDenied"
		}
		if err := cluster.addRole(name, trust, mayPut(s.bucket, "allowed").String()); err != nil {
			t.Fatal(err)
		}
		if got := s.assumeRole(t, "RoleArn", roleARN+name).String(); got != want {
			t.Errorf("trust policy %s: got %s, want %s", trust, got, want)
		}
	}
}

// putUserPolicy sets the policy of a user. radosgw implements this call of IAM.
func (s *site) putUserPolicy(t *testing.T, arn, document string) error {
	t.Helper()
	a := s.call(t, "iam", s.owner, time.Time{}, "Action", "PutUserPolicy", "PolicyName", "permissions",
		"UserName", account+"$"+strings.TrimPrefix(arn, userARN), "PolicyDocument", document)
	if a.status != http.StatusOK {
		return fmt.Errorf("PutUserPolicy: %s: %s", a, a.body)
	}
	return nil
}
