// SPDX-License-Identifier: GPL-3.0-or-later

//go:build tools

// Package tools pins WAL-G for hosts where no release of it can be reached.
//
// The blank import makes the module and all that it needs part of this
// module's go.sum, which is what pins their content: the public checksum
// database does not know the tag.
package tools

import _ "github.com/wal-g/wal-g/main/pg"
