/*
 * fedstill/version.h - the version, in this one place: CMakeLists.txt reads these lines for the shared library's name,
 * fedstill.pc and find_package, and `fedstill --version` prints the text. CONTRIBUTING.md says what a version promises.
 *
 * These are macros of the headers that a program was compiled with. fst_version and fst_version_number (base.h) tell of
 * the library that it runs with.
 */
#ifndef FEDSTILL_VERSION_H
#define FEDSTILL_VERSION_H

#define FST_VERSION_MAJOR 1
#define FST_VERSION_MINOR 0
#define FST_VERSION_PATCH 0
#define FST_VERSION_PRE "-rc1" /* "-rc1": before the release */

#define FST_VERSION_JOIN(a, b, c, pre) #a "." #b "." #c pre
#define FST_VERSION_TEXT(a, b, c, pre) FST_VERSION_JOIN(a, b, c, pre)
/* "1.0.0-rc1", "1.0.0" */
#define FST_VERSION FST_VERSION_TEXT(FST_VERSION_MAJOR, FST_VERSION_MINOR, FST_VERSION_PATCH, FST_VERSION_PRE)
/* 1.0.0 is 10000, 1.2.3 is 10203; the same before a release and for it. For #if and for comparing. */
#define FST_VERSION_NUMBER (FST_VERSION_MAJOR * 10000 + FST_VERSION_MINOR * 100 + FST_VERSION_PATCH)

#endif
