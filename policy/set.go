package policy

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Input holds the facts about AWS that a sink's configuration does not hold. All
// fields are optional. A policy for an unknown identity is omitted, or describes
// the identity in words.
type Input struct {
	// Caller is the ARN of the role or user that assumes the first role of the
	// sink: the identity of the service. Without it the Set has no trust policy
	// for that role.
	Caller string

	// Writer is the ARN of the user or role that writes, for a sink that assumes
	// no role: the identity of its access keys, or the ambient identity. It is
	// ignored for a sink with roles.
	Writer string

	// BucketKMSKey is the ARN of the KMS key that encrypts the objects. It is
	// needed if the bucket has a default key, or if uploads name the key by an
	// alias or id.
	BucketKMSKey string

	// CrossAccount is set if the bucket and its key belong to another account
	// than the writer. The writer's own permissions are then not enough: the
	// policies of the bucket and the key must also allow the access.
	CrossAccount bool

	// Warehouse also allows the writer to read and list the objects, for
	// warehouses that load from the bucket as the same identity.
	Warehouse bool
}

// Kind is the kind of a [Policy]: the type of AWS resource that it is attached to.
type Kind string

// Kinds of policies.
const (
	Permissions  Kind = "permissions"   // of a role or a user
	TrustPolicy  Kind = "trust policy"  // of a role: the identities that may assume it
	BucketPolicy Kind = "bucket policy" // statements to add to the policy of the bucket
	KeyPolicy    Kind = "key policy"    // statements to add to the policy of the KMS key
)

// Policy is one policy to set up in AWS.
type Policy struct {
	Kind     Kind     `json:"kind"`
	Of       string   `json:"of"` // ARN of its role, user, bucket or key; words if the ARN is unknown
	Why      string   `json:"why"`
	Document Document `json:"policy"`
}

// Set holds every policy that one sink needs in AWS, in setup order.
type Set []Policy

// InputError reports a field of [Input] or [Sink] that [For] refuses.
type InputError struct {
	Field string // for example "Input.Caller"
	Value string
	Want  string // the form that the field must have
}

func (e *InputError) Error() string {
	return fmt.Sprintf("s3sink: policy.%s %q: want %s", e.Field, e.Value, e.Want)
}

// For returns the policies that AWS must have for sink. Its error joins an
// [*InputError] for every field that is wrong; the Set is then nil.
//
// These policies allow less than the vendors' policies that they replace. Segment's
// policy allows s3:PutObjectAcl even if uploads set no ACL. It covers only segment-logs/*,
// which is not enough for a bucket string with a path. RudderStack's policies allow
// whole buckets; the policy of its option 3 allows every action on all buckets
// ("Action": "*"). None of RudderStack's options needs more than the policies here.
// kms:Decrypt is for multipart uploads, which a sink does not make.
func For(sink Sink, in Input) (Set, error) {
	if err := errors.Join(sink.check(), in.Check()); err != nil {
		return nil, err
	}
	m := maker{sink, in}
	return m.all(), nil
}

var (
	principalARN  = regexp.MustCompile(`^arn:(aws|aws-cn|aws-us-gov):iam::[0-9]{12}:(role|user)/[\x21-\x7e]+$`)
	keyARN        = regexp.MustCompile(`^arn:(aws|aws-cn|aws-us-gov):kms:[a-z0-9-]+:[0-9]{12}:key/[0-9A-Za-z-]+$`)
	bucketPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)
)

// Check reports every field that [For] refuses, joined, each as an [*InputError].
func (in Input) Check() error {
	var errs inputErrors
	errs.match("Input.Caller", in.Caller, "arn:aws:iam::ACCOUNT_ID:role/NAME or …:user/NAME", principalARN)
	errs.match("Input.Writer", in.Writer, "arn:aws:iam::ACCOUNT_ID:user/NAME or …:role/NAME", principalARN)
	errs.match("Input.BucketKMSKey", in.BucketKMSKey, "arn:aws:kms:REGION:ACCOUNT_ID:key/ID", keyARN)
	return errors.Join(errs...)
}

func (s Sink) check() error {
	var errs inputErrors
	if !bucketPattern.MatchString(s.Bucket) {
		errs.add("Sink.Bucket", s.Bucket, "the name of a bucket, without a path")
	}
	if !slices.Contains([]string{"aws", "aws-cn", "aws-us-gov"}, s.partition()) {
		errs.add("Sink.Partition", s.Partition, "aws, aws-cn or aws-us-gov")
	}
	if !slices.Contains([]string{"", sseS3, "aws:kms"}, s.Encryption) {
		errs.add("Sink.Encryption", s.Encryption, `AES256, aws:kms or ""`)
	}
	for _, role := range s.Roles {
		if parsePrincipal(role.ARN).kind != "role" {
			errs.add("Sink.Roles", role.ARN, "arn:aws:iam::ACCOUNT_ID:role/NAME")
		}
	}
	return errors.Join(errs...)
}

type inputErrors []error

// match adds an error for a value that is set and does not match pattern.
func (e *inputErrors) match(field, value, want string, pattern *regexp.Regexp) {
	if value != "" && !pattern.MatchString(value) {
		e.add(field, value, want)
	}
}

func (e *inputErrors) add(field, value, want string) {
	const maxValueBytes = 80
	if len(value) > maxValueBytes {
		value = strings.ToValidUTF8(value[:maxValueBytes], "") + "…"
	}
	*e = append(*e, &InputError{Field: field, Value: value, Want: want})
}

// maker builds the policies for one sink.
type maker struct {
	sink Sink
	in   Input
}

func (m maker) all() Set {
	set, writer := m.roles()
	set = append(set, Policy{
		Kind: Permissions, Of: cmp.Or(writer, "whoever writes"),
		Why:      "to write below the prefix",
		Document: allow(m.writerStatements()...),
	})
	if writer == "" {
		return set // policies of the bucket and the key must name the writer
	}
	if m.in.CrossAccount {
		set = append(set, m.bucketPolicy(writer))
	}
	if key := m.key(); key != "" {
		set = append(set, m.keyPolicy(writer, key))
	}
	return set
}

// roles returns the policies that allow each role to be assumed, and the identity
// that writes: the last role or, without roles, the Writer of the Input.
func (m maker) roles() (set Set, writer string) {
	if len(m.sink.Roles) == 0 {
		return nil, m.in.Writer
	}
	caller := m.in.Caller
	for _, role := range m.sink.Roles {
		set = append(set, Policy{
			Kind: Permissions, Of: cmp.Or(caller, "the caller"),
			Why:      "to assume the role " + role.ARN,
			Document: AssumeRolePolicy(role.ARN),
		})
		if caller != "" {
			set = append(set, trustPolicy(role, caller))
		}
		caller = role.ARN
	}
	return set, caller
}

func trustPolicy(role Role, caller string) Policy {
	trust := Statement{
		Action:    []string{"sts:AssumeRole"},
		Principal: map[string]string{"AWS": caller},
	}
	if role.ExternalID != "" {
		trust.Condition = map[string]map[string][]string{"StringEquals": {"sts:ExternalId": {role.ExternalID}}}
	}
	return Policy{
		Kind: TrustPolicy, Of: role.ARN,
		Why:      "so that it can be assumed, and only so",
		Document: allow(trust),
	}
}

// writerStatements returns the permissions of the writer.
func (m maker) writerStatements() []Statement {
	put := m.sink.AllowPut()
	put.Sid = "WriteObjects"
	statements := []Statement{put}
	if key := m.key(); key != "" {
		statements = append(statements, m.useKey("UseKeyThroughS3", key))
	}
	if !m.in.Warehouse {
		return statements
	}
	// s3:ListBucket applies to the bucket. On objects, as in RudderStack's policy,
	// it allows nothing.
	return append(statements,
		Statement{Sid: "ReadObjects", Action: []string{"s3:GetObject"}, Resource: put.Resource},
		Statement{
			Sid: "ListObjects", Action: []string{"s3:ListBucket"}, Resource: []string{m.sink.bucketARN()},
			Condition: map[string]map[string][]string{"StringLike": {"s3:prefix": {literal(m.sink.Folder) + "*"}}},
		})
}

// key returns the policy resource of the key that encrypts, or "" without a key.
func (m maker) key() string {
	switch m.sink.Encryption {
	case sseS3:
		return ""
	case "":
		return m.in.BucketKMSKey
	}
	if key := m.sink.keyResource(); key != "*" {
		return key
	}
	return cmp.Or(m.in.BucketKMSKey, "*")
}

// useKey allows the writer to use a KMS key.
func (m maker) useKey(sid, key string) Statement {
	actions := []string{"kms:GenerateDataKey"}
	if m.in.Warehouse {
		actions = append(actions, "kms:Decrypt") // for reading objects
	}
	statement := useKey(key, actions...)
	statement.Sid = sid
	return statement
}

func (m maker) bucketPolicy(writer string) Policy {
	statements := withoutKeys(m.writerStatements())
	for i := range statements {
		statements[i].Principal = map[string]string{"AWS": writer}
	}
	return Policy{
		Kind: BucketPolicy, Of: m.sink.bucketARN(),
		Why:      "because the bucket is in another account than whoever writes",
		Document: allow(statements...),
	}
}

// withoutKeys removes the statements for keys: a bucket policy cannot contain them.
func withoutKeys(statements []Statement) []Statement {
	return slices.DeleteFunc(statements, func(s Statement) bool { return strings.HasPrefix(s.Action[0], "kms:") })
}

func (m maker) keyPolicy(writer, key string) Policy {
	why := "if its policy does not leave it to IAM"
	if m.in.CrossAccount {
		why = "because the key is in another account than whoever writes"
	}
	use := m.useKey("UseThroughS3", "*") // in a key policy, * means the key
	use.Principal = map[string]string{"AWS": writer}
	return Policy{
		Kind: KeyPolicy, Of: strings.Replace(key, "*", "the key", 1), Why: why,
		Document: allow(use),
	}
}

// String returns all policies as JSON documents, each below a line with its
// title.
func (s Set) String() string {
	var b strings.Builder
	for i, p := range s {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# %s\n%s\n", p.title(), p.Document)
	}
	return b.String()
}

func (p Policy) title() string { return fmt.Sprintf("%s of %s, %s", p.Kind, p.Of, p.Why) }
