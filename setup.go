package s3sink

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Setup says what a Config does not: who is who in AWS. All of it is optional.
type Setup struct {
	// Caller is the ARN of the identity that assumes the role, or, with Via a
	// role, the first one: the service's own role or user. Without it there is
	// no trust policy for that role.
	Caller string

	// Writer is the ARN of the IAM user or role that writes when the Config
	// assumes no role: whose access keys they are, or the ambient identity.
	Writer string

	// BucketKMSKey is the ARN of the KMS key that encrypts, when
	// Config.Encryption leaves it to the bucket or names it by an alias or id.
	BucketKMSKey string

	// CrossAccount says that the bucket, and its key, belong to another account
	// than whoever writes. Then permissions alone are not enough: the bucket's
	// policy and the key's must allow it too.
	CrossAccount bool

	// Warehouse also allows to read what was written, and to list it, for
	// warehouses that load from the bucket as the same identity.
	Warehouse bool
}

// PolicyKind is what a policy belongs to.
type PolicyKind string

// Kinds of policies.
const (
	PermissionsPolicy PolicyKind = "permissions"   // of a role or a user
	TrustPolicy       PolicyKind = "trust policy"  // of a role: who may assume it
	BucketPolicy      PolicyKind = "bucket policy" // statements to add to the bucket's
	KeyPolicy         PolicyKind = "key policy"    // statements to add to the KMS key's
)

// PolicyDocument is one thing to set up in AWS.
type PolicyDocument struct {
	Kind   PolicyKind `json:"kind"`
	Of     string     `json:"of"` // ARN of the role, user, bucket or key it belongs to, or words if it is not known
	Why    string     `json:"why"`
	Policy Policy     `json:"policy"`
}

// Policies are all that must be set up, in order.
type Policies []PolicyDocument

// Policies returns what AWS must allow for a sink with this Config, and no
// more: the very actions and the very folder. It makes no request. Its errors
// are [*ConfigError]s; those about setup name fields of [Setup].
//
// The documents that it stands in for allow more. Segment's allows
// s3:PutObjectAcl also where no ACL is sent, and covers segment-logs/* alone,
// which is not enough for a bucket string with a path. RudderStack's allow
// whole buckets, and for its option 3 every action on all of them
// ("Action": "*"); no more than here is needed for any of its options.
// kms:Decrypt is for uploads in parts, which a sink does not make.
func (c Config) Policies(setup Setup) (Policies, error) {
	c = c.withDefaults()
	if err := errors.Join(c.validate(), setup.check()); err != nil {
		return nil, err
	}
	p := policyMaker{cfg: &c, Setup: setup, partition: c.partition()}
	return p.all(), nil
}

var (
	principalARN = regexp.MustCompile(`^arn:(aws|aws-cn|aws-us-gov):iam::[0-9]{12}:(role|user)/[\x21-\x7e]+$`)
	keyARN       = regexp.MustCompile(`^arn:(aws|aws-cn|aws-us-gov):kms:[a-z0-9-]+:[0-9]{12}:key/[0-9A-Za-z-]+$`)
)

func (s Setup) check() error {
	var errs configErrors
	arn := func(field, value, want string, pattern *regexp.Regexp) {
		if value != "" && !pattern.MatchString(value) {
			errs.add("Setup."+field, value, want)
		}
	}
	arn("Caller", s.Caller, "arn:aws:iam::ACCOUNT_ID:role/NAME or …:user/NAME", principalARN)
	arn("Writer", s.Writer, "arn:aws:iam::ACCOUNT_ID:user/NAME or …:role/NAME", principalARN)
	arn("BucketKMSKey", s.BucketKMSKey, "arn:aws:kms:REGION:ACCOUNT_ID:key/ID", keyARN)
	return errors.Join(errs...)
}

// policyMaker makes the documents for one Config.
type policyMaker struct {
	Setup
	cfg       *Config
	partition string
}

func (p policyMaker) all() Policies {
	var all Policies
	writer := p.Writer
	if r, ok := p.cfg.Credentials.(role); ok {
		all = p.chain(r)
		writer = r.arn
	}
	all = append(all, PolicyDocument{
		Kind: PermissionsPolicy, Of: cmp.Or(writer, "whoever writes"),
		Why:    "to write below the prefix",
		Policy: allow(p.write()...),
	})
	if writer == "" {
		return all // whom policies of the bucket and the key would name is not known
	}
	if p.CrossAccount {
		all = append(all, p.bucketPolicy(writer))
	}
	if key := p.key(); key != "" {
		all = append(all, p.keyPolicy(writer, key))
	}
	return all
}

// chain returns what lets the roles be assumed, one by the other.
func (p policyMaker) chain(r role) Policies {
	var all Policies
	caller := p.Caller
	if base, ok := r.base.(role); ok {
		all = p.chain(base)
		caller = base.arn
	}
	all = append(all, PolicyDocument{
		Kind: PermissionsPolicy, Of: cmp.Or(caller, "the caller"),
		Why:    "to assume the role " + r.arn,
		Policy: hopPolicy(r.arn),
	})
	if caller == "" {
		return all
	}
	trust := Statement{
		Action:    []string{"sts:AssumeRole"},
		Principal: map[string]string{"AWS": caller},
	}
	if r.externalID != "" {
		trust.Condition = map[string]map[string][]string{"StringEquals": {"sts:ExternalId": {r.externalID}}}
	}
	return append(all, PolicyDocument{
		Kind: TrustPolicy, Of: r.arn,
		Why:    "so that it can be assumed, and only so",
		Policy: allow(trust),
	})
}

// write returns the statements of whoever writes.
func (p policyMaker) write() []Statement {
	put := p.cfg.putStatement(p.partition)
	put.Sid = "WriteObjects"
	statements := []Statement{put}
	if key := p.key(); key != "" {
		statements = append(statements, p.useKey())
	}
	if !p.Warehouse {
		return statements
	}
	// s3:ListBucket is about the bucket: on objects, as RudderStack's document
	// has it, it allows nothing.
	bucket, objects, _ := strings.Cut(put.Resource[0], "/")
	return append(statements,
		Statement{Sid: "ReadObjects", Action: []string{"s3:GetObject"}, Resource: put.Resource},
		Statement{
			Sid: "ListObjects", Action: []string{"s3:ListBucket"}, Resource: []string{bucket},
			Condition: map[string]map[string][]string{"StringLike": {"s3:prefix": {objects}}},
		})
}

// key returns the resource by which a policy names the key that encrypts, or ""
// if there is none.
func (p policyMaker) key() string {
	switch p.cfg.Encryption.algorithm {
	case "AES256":
		return ""
	case "":
		return p.BucketKMSKey
	}
	if configured := p.cfg.keyStatement().Resource[0]; configured != "*" {
		return configured
	}
	return cmp.Or(p.BucketKMSKey, "*")
}

// useKey is the statement by which whoever writes may use the key.
func (p policyMaker) useKey() Statement {
	return Statement{
		Sid:       "UseKeyThroughS3",
		Action:    p.keyActions(),
		Resource:  []string{cmp.Or(p.key(), "*")},
		Condition: map[string]map[string][]string{"StringLike": {"kms:ViaService": viaS3}},
	}
}

func (p policyMaker) keyActions() []string {
	if p.Warehouse {
		return []string{"kms:GenerateDataKey", "kms:Decrypt"} // to read
	}
	return []string{"kms:GenerateDataKey"}
}

func (p policyMaker) bucketPolicy(writer string) PolicyDocument {
	put := p.cfg.putStatement(p.partition)
	bucket, _, _ := strings.Cut(put.Resource[0], "/")
	statements := p.write()
	for i := range statements {
		statements[i].Principal = map[string]string{"AWS": writer}
	}
	return PolicyDocument{
		Kind: BucketPolicy, Of: bucket,
		Why:    "because the bucket is in another account than whoever writes",
		Policy: allow(withoutKeys(statements)...),
	}
}

// withoutKeys leaves out what the policy of a bucket cannot say.
func withoutKeys(statements []Statement) (rest []Statement) {
	for _, s := range statements {
		if !strings.HasPrefix(s.Action[0], "kms:") {
			rest = append(rest, s)
		}
	}
	return rest
}

func (p policyMaker) keyPolicy(writer, key string) PolicyDocument {
	why := "if its policy does not leave it to IAM"
	if p.CrossAccount {
		why = "because the key is in another account than whoever writes"
	}
	return PolicyDocument{
		Kind: KeyPolicy, Of: strings.Replace(key, "*", "the key", 1), Why: why,
		Policy: allow(Statement{
			Sid:       "UseThroughS3",
			Principal: map[string]string{"AWS": writer},
			Action:    p.keyActions(),
			Resource:  []string{"*"}, // in a key's policy this is the key
			Condition: map[string]map[string][]string{"StringLike": {"kms:ViaService": viaS3}},
		}),
	}
}

// String returns all documents as JSON, each under a line that says what it
// is.
func (p Policies) String() string {
	var b strings.Builder
	for i, d := range p {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# %s\n%s\n", d.title(), d.Policy)
	}
	return b.String()
}

func (d PolicyDocument) title() string { return fmt.Sprintf("%s of %s, %s", d.Kind, d.Of, d.Why) }
