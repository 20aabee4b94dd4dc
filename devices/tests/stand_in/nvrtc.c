// A stand-in for NVIDIA's run-time compiler: knows no architecture by name, and makes PTX newer than the driver.
#include <stdlib.h>
#include <string.h>

enum { INVALID_OPTION = 5, COMPILATION = 6 };

static const char PTX[] = ".version 99.0\n";
static const char LOG[] = "stand-in.cu(1): error: this is wrong\n";

int nvrtcCreateProgram(char **program, const char *source, const char *name, int headers, const char *const *texts,
                       const char *const *names) {
    *program = strdup(source);
    return 0;
}
int nvrtcDestroyProgram(char **program) { free(*program); *program = 0; return 0; }
int nvrtcCompileProgram(char *program, int count, const char *const *options) {
    for (int i = 0; i < count; i++)
        if (strncmp(options[i], "--gpu-architecture", 18) == 0) return INVALID_OPTION;
    return strstr(program, "wrong") ? COMPILATION : 0;
}
int nvrtcGetPTXSize(char *program, size_t *size) { *size = sizeof PTX; return 0; }
int nvrtcGetPTX(char *program, char *ptx) { memcpy(ptx, PTX, sizeof PTX); return 0; }
int nvrtcGetProgramLogSize(char *program, size_t *size) { *size = sizeof LOG; return 0; }
int nvrtcGetProgramLog(char *program, char *log) { memcpy(log, LOG, sizeof LOG); return 0; }
