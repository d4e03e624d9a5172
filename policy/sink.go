package policy

import (
	"slices"
	"strings"
)

// Sink holds the facts of a sink's configuration on which policies depend.
// Config.Policies of the root package fills it.
type Sink struct {
	// Bucket is the name of the bucket, without a path.
	Bucket string

	// Folder is the folder that holds every key, with a slash at its end, such
	// as "raw/segment-logs/". "" is the whole bucket.
	Folder string

	// Partition is the AWS partition of the bucket: "aws", "aws-cn" or
	// "aws-us-gov". Defaults to "aws".
	Partition string

	// Encryption is the x-amz-server-side-encryption of uploads: "AES256",
	// "aws:kms", or "" for the default encryption of the bucket.
	Encryption string

	// KMSKey is the key that uploads name: its ARN, id or alias. "" is none.
	KMSKey string

	// SetsACL and SetsTags are set if uploads set an ACL or tags. Each needs a
	// separate action.
	SetsACL, SetsTags bool

	// Roles are the roles that the sink assumes, in that order. The last one
	// writes. A sink without roles writes as [Input].Writer.
	Roles []Role
}

// Role is an IAM role that a sink assumes.
type Role struct {
	ARN        string
	ExternalID string // "" if the role requires none
}

// AllowPut returns the statement that allows the uploads of the sink to folders.
// Without arguments that is the Folder of the sink.
func (s Sink) AllowPut(folders ...string) Statement {
	if len(folders) == 0 {
		folders = []string{s.Folder}
	}
	statement := Statement{Effect: "Allow", Action: []string{"s3:PutObject"}}
	if s.SetsACL {
		statement.Action = append(statement.Action, "s3:PutObjectAcl")
	}
	if s.SetsTags {
		statement.Action = append(statement.Action, "s3:PutObjectTagging")
	}
	for _, folder := range folders {
		statement.Resource = append(statement.Resource, s.bucketARN()+"/"+literal(folder)+"*")
	}
	return statement
}

// AllowUseOfKey returns the statement that allows uploads to encrypt with the KMS
// key of the sink. If the key is not given by its ARN, the statement covers every
// key that is used through S3.
func (s Sink) AllowUseOfKey() Statement {
	statement := useKey(s.keyResource(), "kms:GenerateDataKey")
	statement.Sid = "UseKeyThroughS3"
	return statement
}

// SessionPolicy returns the policy for sessions of the role that writes: it
// allows uploads to the sink's Folder and to the other folders, and nothing else.
//
// A session policy limits the permissions of the role, so it must also allow the
// use of the KMS key. Otherwise a bucket that encrypts with a key refuses every
// object.
func (s Sink) SessionPolicy(others ...string) Document {
	folders := slices.Concat(others, []string{s.Folder})
	statements := []Statement{s.AllowPut(outermost(folders)...)}
	if s.Encryption != sseS3 {
		statements = append(statements, useKey(s.keyResource(), "kms:GenerateDataKey", "kms:Decrypt"))
	}
	return allow(statements...)
}

// AssumeRolePolicy returns the policy that only allows one role to be assumed. It is
// for sessions of an intermediate role, and for the caller.
func AssumeRolePolicy(roleARN string) Document {
	return allow(Statement{Action: []string{"sts:AssumeRole"}, Resource: []string{literal(roleARN)}})
}

// sseS3 is the value of Sink.Encryption for keys that S3 manages.
const sseS3 = "AES256"

func (s Sink) bucketARN() string { return "arn:" + s.partition() + ":s3:::" + s.Bucket }

func (s Sink) partition() string {
	if s.Partition == "" {
		return "aws"
	}
	return s.Partition
}

// keyResource returns the policy resource for the key of uploads. For an alias or a
// bare id it is "*": neither names the account of the key, and IAM matches neither.
func (s Sink) keyResource() string {
	if !strings.HasPrefix(s.KMSKey, "arn:") || strings.Contains(s.KMSKey, ":alias/") {
		return "*"
	}
	return s.KMSKey
}

// viaS3 are the names of S3 in the condition kms:ViaService, in every partition.
var viaS3 = []string{"s3.*.amazonaws.com", "s3.*.amazonaws.com.cn"}

// useKey allows actions on a KMS key, through S3 only.
func useKey(key string, actions ...string) Statement {
	return Statement{
		Effect:    "Allow",
		Action:    actions,
		Resource:  []string{key},
		Condition: map[string]map[string][]string{"StringLike": {"kms:ViaService": slices.Clone(viaS3)}},
	}
}

// outermost returns the folders that no other folder contains, sorted.
func outermost(folders []string) (all []string) {
	slices.Sort(folders)
	for _, f := range folders {
		if len(all) == 0 || !strings.HasPrefix(f, all[len(all)-1]) {
			all = append(all, f)
		}
	}
	return all
}
